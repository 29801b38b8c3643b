"""Build script: one import package from two folders, and one C++ extension that never sees a Torch header."""

from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext, naive_recompile
from setuptools import find_packages, setup

NAME = "halfbyte"
FOLDERS = {NAME: "engine", f"{NAME}.triton_kernels": "triton_kernels"}

extension = Pybind11Extension(
    f"{NAME}._C",
    sorted(glob("csrc/*.cpp")),
    depends=sorted(glob("csrc/*.h")),
    cxx_std=17,
    extra_compile_args=["-O3", "-fvisibility=hidden", "-ffp-contract=off"],
)
# Without a compiler the package installs all the same and runs on its PyTorch code; `halfbyte doctor` says what that costs.
extension.optional = True

with ParallelCompile("HALFBYTE_BUILD_JOBS", needs_recompile=naive_recompile):
    setup(
        package_dir=FOLDERS,
        packages=[f"{package}.{sub}".rstrip(".") for package, folder in FOLDERS.items() for sub in ["", *find_packages(folder)]],
        ext_modules=[extension],
        cmdclass={"build_ext": build_ext},
    )
