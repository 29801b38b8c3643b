"""Build script: one import package from two folders, and extensions that never see a Torch header.

halfbyte._C      C++ kernels for the CPU
halfbyte._cuda   CUDA kernels, for the GPUs found here or those of HALFBYTE_CUDA_ARCHS; needs nvcc
halfbyte._simt   the same CUDA sources compiled for the CPU, for tests, with HALFBYTE_SIMT=1
"""

import hashlib
import os
import shutil
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup

NAME = "halfbyte"
FOLDERS = {NAME: "engine", f"{NAME}.triton_kernels": "triton_kernels"}
KERNELS = tomllib.loads(Path("csrc/cuda/architectures.toml").read_text())
HEADERS = sorted(glob("csrc/**/*.h", recursive=True))
JOBS = int(os.environ.get("HALFBYTE_BUILD_JOBS") or os.cpu_count() or 1)
HIDDEN = ["-O3", "-fvisibility=hidden", "-ffp-contract=off"]


def wanted_architectures() -> list[str]:
    """HALFBYTE_CUDA_ARCHS: "all", "none", or a list such as "86;90a"; unset: the GPUs found here."""
    every = sorted({arch for archs in KERNELS["kernels"].values() for arch in archs}, key=lambda arch: int(arch.rstrip("af")))
    text = os.environ.get("HALFBYTE_CUDA_ARCHS", "")
    if text == "none":
        return []
    if text == "all":
        return every
    if text:
        if unknown := sorted(set(text.split(";")) - set(every)):
            raise SystemExit(f"HALFBYTE_CUDA_ARCHS: all, none or a list of {';'.join(every)} needed, got {unknown[0]!r}")
        return text.split(";")
    return gpus_found(every) if shutil.which("nvcc") and shutil.which("nvidia-smi") else []


def gpus_found(every: list[str]) -> list[str]:
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    capabilities = set(subprocess.run(query, capture_output=True, text=True).stdout.replace(".", "").split())
    # An architecture we do not list runs the newest older one of its generation: sm_87 that of sm_86.
    found = set()
    for capability in filter(str.isdecimal, capabilities):
        numbers = {int(arch.rstrip("af")): arch for arch in every}
        family = [number for number in numbers if number // 10 == int(capability) // 10 and number <= int(capability)]
        found |= {numbers[max(family)]} if family else set()
    return sorted(found)


def is_stale(target: str, source: str) -> bool:
    """Whether an object must be compiled again: its source or any header is newer."""
    return not os.path.exists(target) or any(os.path.getmtime(path) > os.path.getmtime(target) for path in [source, *HEADERS])


def content_digest(source: str) -> str:
    """Of a kernel's source and all headers: objects that were carried here from another machine count, whatever their times."""
    found = hashlib.sha256()
    for path in (source, *HEADERS):
        found.update(Path(path).read_bytes())
    return found.hexdigest()


class BuildExtensions(build_ext):
    """Compiles each .cu file to one object, with nvcc for all its architectures or with g++ for the host shim, before linking."""

    def build_extension(self, extension) -> None:
        kernels = [f"csrc/cuda/{name}.cu" for name in KERNELS["kernels"]]
        on_device = [*kernels, "csrc/cuda/launch.cu", "csrc/cuda/tensor_map.cu"]
        commands = {f"{NAME}._cuda": (nvcc_command, on_device), f"{NAME}._simt": (shim_command, kernels)}
        if extension.name in commands:
            command, sources = commands[extension.name]
            with ThreadPoolExecutor(JOBS) as pool:
                objects = [pool.submit(self.compile_object, source, command(source)) for source in sources]
                extension.extra_objects = [done.result() for done in objects]
        # Two extensions compile the same bindings with other macros: each has objects of its own.
        everyone, self.build_temp = self.build_temp, str(Path(self.build_temp) / extension.name)
        super().build_extension(extension)
        self.build_temp = everyone

    @staticmethod
    def compile_object(source: str, command: list[str]) -> str:
        # Kept outside the build's own folder, which an editable install makes anew each time.
        target = Path("build/kernels") / command[0] / f"{Path(source).stem}.o"
        target.parent.mkdir(parents=True, exist_ok=True)
        stamp, text = target.with_suffix(".command"), f"{' '.join(command)}\n{content_digest(source)}"
        if not target.exists() or not stamp.exists() or stamp.read_text() != text:
            subprocess.run([*command, "-c", source, "-o", str(target)], check=True)
            stamp.write_text(text)
        return str(target)


def nvcc_command(source: str) -> list[str]:
    archs = [arch for arch in KERNELS["kernels"].get(Path(source).stem, []) if arch in wanted_architectures()]
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    if os.environ.get("HALFBYTE_CUDA_ARCHS") == "all" or not archs:
        targets.append(f"-gencode=arch={KERNELS['ptx']},code={KERNELS['ptx']}")
    flags = ["-std=c++17", "-O3", "-fmad=false", "-Icsrc/cuda", "--compress-mode=size", "-Xcompiler=-fPIC,-fvisibility=hidden"]
    return ["nvcc", *flags, *targets]


def shim_command(source: str) -> list[str]:
    """Default visibility: the shim finds a kernel's name by its symbol. What the sanitizers find, csrc/simt reports as a fault."""
    sanitizers = "-fsanitize=bounds-strict,shift,object-size"
    language = ["-x", "c++", "-std=c++20", "-O2", "-ffp-contract=off", "-fPIC"]
    return ["g++", *language, sanitizers, "-Wno-psabi", "-DHALFBYTE_SIMT", "-Icsrc/cuda", "-Icsrc"]


def cuda_extension() -> Pybind11Extension:
    beside_compiler = Path(shutil.which("nvcc")).resolve().parents[1]
    roots = [Path(root) for root in (os.environ.get("CUDA_HOME"), beside_compiler, "/usr/local/cuda") if root]
    try:
        root = next(root for root in roots if (root / "include/cuda_runtime.h").exists())
        libraries = next(root / name for name in ("lib64", "lib") if (root / name / "libcudart_static.a").exists())
    except StopIteration:
        raise SystemExit(f"CUDA_HOME: a toolkit with headers and libcudart_static.a needed, none in {', '.join(map(str, roots))}") from None
    return Pybind11Extension(
        f"{NAME}._cuda",
        ["csrc/cuda/bindings.cpp"],
        depends=HEADERS + glob("csrc/cuda/*.cu"),
        include_dirs=["csrc/cuda", str(root / "include")],
        cxx_std=17,
        define_macros=[("MODULE_NAME", "_cuda"), ("BUILT_ARCHITECTURES", f'"{";".join(wanted_architectures())}"')],
        extra_compile_args=HIDDEN,
        extra_link_args=[f"-L{libraries}", "-lcudart_static", "-ldl", "-lrt", "-lpthread", "-static-libstdc++"],
    )


def simt_extension() -> Pybind11Extension:
    return Pybind11Extension(
        f"{NAME}._simt",
        ["csrc/cuda/bindings.cpp", *sorted(glob("csrc/simt/*.cpp"))],
        depends=HEADERS + glob("csrc/cuda/*.cu"),
        include_dirs=["csrc/cuda", "csrc"],
        cxx_std=20,
        define_macros=[("MODULE_NAME", "_simt"), ("HALFBYTE_SIMT", "1"), ("BUILT_ARCHITECTURES", '""')],
        extra_compile_args=["-O2", "-ffp-contract=off", "-fvisibility=default"],
    )


cpu = Pybind11Extension(
    f"{NAME}._C",
    sorted(glob("csrc/cpu/*.cpp")),
    depends=HEADERS,
    cxx_std=17,
    extra_compile_args=HIDDEN,
)
# Without a compiler the package installs all the same and runs on its PyTorch code; `halfbyte doctor` says what that costs.
cpu.optional = True
extensions = [cpu]
if wanted_architectures():
    extensions.append(cuda_extension())
if os.environ.get("HALFBYTE_SIMT") == "1":
    extensions.append(simt_extension())

with ParallelCompile("HALFBYTE_BUILD_JOBS", needs_recompile=is_stale):
    setup(
        package_dir=FOLDERS,
        packages=[f"{package}.{sub}".rstrip(".") for package, folder in FOLDERS.items() for sub in ["", *find_packages(folder)]],
        package_data={f"{NAME}.triton_kernels": ["defaults/*.json"]},
        ext_modules=extensions,
        cmdclass={"build_ext": BuildExtensions},
    )
