"""The features of all real digits, which Frechet distances are measured to: python examples/digits/reference.py."""

from pathlib import Path

from halfbyte.report.judge import REFERENCE, Judge
from safetensors.torch import save_file

from data import enlarge, load_digits

HERE = Path(__file__).resolve().parent


def main() -> None:
    ink, labels = load_digits()
    judged = Judge(HERE / "classifier")((enlarge(ink) + 1) / 2)
    path = HERE / "classifier" / REFERENCE
    partial = path.with_suffix(".partial")
    save_file({"features": judged.features.half().contiguous()}, partial)
    partial.replace(path)
    accuracy = (judged.predicted == labels).float().mean()
    print(f"{len(ink)} real digits, {judged.features.shape[1]} features, {100 * accuracy:.1f} % of them told right: {path}")


if __name__ == "__main__":
    main()
