"""Look inside a classifier of one's own: which of three waves is it? A bidirectional LSTM tells.

python examples/inspect_classifier.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import headgate
from headgate import Recurrent
from headgate.inspection import idle_units, saturation, save_figure, steps_page, units_figure

WAVES = ("sine", "square", "saw")


class Classifier(nn.Module):
    """Scores (N, 3) of each wave for sequences (N, T, 1), from the layer's last outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = Recurrent(
            "lstm", 1, 16, bidirectional=True, batch_first=True, output_mode="last"
        )
        self.read = nn.Linear(32, len(WAVES))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.recurrent(x)[0])


def waves(rows: int, steps: int = 60) -> tuple[Tensor, Tensor]:
    """Noisy waves (N, T, 1) of random phase and period, and which each of them is (N,)."""
    kind = torch.randint(len(WAVES), (rows,))
    period, start = 10 + 20 * torch.rand(rows, 1), torch.rand(rows, 1)
    phase = (start + torch.arange(steps) / period) % 1
    shapes = torch.stack(
        [torch.sin(2 * torch.pi * phase), torch.where(phase < 0.5, 1.0, -1.0), 2 * phase - 1]
    )
    clean = shapes[kind, torch.arange(rows)]
    return (clean + 0.1 * torch.randn(rows, steps)).unsqueeze(-1), kind


def main(folder: Path) -> None:
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(400):
        x, kind = waves(32)
        loss = nn.functional.cross_entropy(model(x), kind)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    x, kind = waves(300)
    with torch.no_grad():
        right = (model(x).argmax(-1) == kind).float().mean()
    print(f"right for {right:.0%} of new waves")

    seen = headgate.inspect(model, x[:3])
    print(saturation(seen))
    print(idle_units(seen))
    folder.mkdir(parents=True, exist_ok=True)
    seen.table().write_parquet(folder / "values.parquet")
    save_figure(units_figure(seen), folder / "units.png")
    title = f"A classifier reads a {WAVES[int(kind[0])]}"
    (folder / "steps.html").write_text(steps_page(seen, title=title), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python examples/inspect_classifier.py FOLDER")
    main(Path(sys.argv[1]))
