"""Train the shipped models again: python examples/digits/train.py all."""

import argparse
import json

import torch

from stages import WORK, train_classifier, train_dit, train_unet, train_vae
from trainer import Budget

STAGES = {
    "classifier": (train_classifier, 64, Budget(steps=1500, minutes=2, learning_rate=2e-3, ema_decay=0.99)),
    "vae": (train_vae, 32, Budget(steps=3000, minutes=5, learning_rate=2e-3, ema_decay=0.995, weight_decay=0.0)),
    "dit": (train_dit, 96, Budget(steps=12000, minutes=40, learning_rate=8e-4)),
    "unet": (train_unet, 64, Budget(steps=12000, minutes=40, learning_rate=8e-4)),
}

EXAMPLES = """examples:
  python examples/digits/train.py all                     everything, in order, with the default budgets
  python examples/digits/train.py dit --minutes 40        one model; the learning rate decays to the planned end
  python examples/digits/train.py unet --device cuda      on a GPU
Run the same command again after Ctrl-C and it goes on from the last saved step; delete examples/digits/.work to
start anew. The classifier and the VAE come before the two denoisers, which can train side by side."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--minutes", type=float, help="wall time per stage; each stage has its own default")
    parser.add_argument("--steps", type=int, help="most optimizer steps per stage; each stage has its own default")
    parser.add_argument("--batch", type=int, help="images per step; each stage has its own default")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores where not given")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for name in STAGES if arguments.stage == "all" else (arguments.stage,):
        run, batch, budget = STAGES[name]
        torch.manual_seed(0)
        changes = {key: value for key in ("minutes", "steps") if (value := getattr(arguments, key)) is not None}
        if not run(Budget(**{**vars(budget), **changes}), arguments.batch or batch, arguments.device):
            raise SystemExit(f"{name} interrupted; its state is saved, run the same command to go on")
        facts = json.loads((WORK / name / "state.json").read_text())
        print(f"{name}: {facts['step']} steps, {facts['wall_seconds'] / 60:.1f} minutes of wall time, "
              f"{facts['cpu_seconds'] / 60:.1f} core-minutes")


if __name__ == "__main__":
    main()
