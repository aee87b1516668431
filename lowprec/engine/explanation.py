"""What a run consisted of: one row per executed step, and what each cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRow:
    """One executed step.

    Attributes:
        op: Operator of the fused graph ("QConv", "Softmax"), or the layout change that was needed.
        name: Node name in the model.
        kernel: The implementation that was chosen; "reference" for a fall-back.
        isa: Instruction set of the kernels.
        output: Element type and shape of what it makes, "u8[1, 64, 56, 56]".
        macs: Multiply-adds.
        refused: Better implementations that refused, and why.
        native: False for a node that runs through ONNX's reference implementation.
        moved: Bytes of its operands, its results and the constants that it was made from.
    """

    op: str
    name: str
    kernel: str
    isa: str
    output: str
    macs: float
    refused: str
    native: bool
    moved: int = 0


@dataclass(frozen=True)
class StepTime:
    """A step and its median time in seconds."""

    row: StepRow
    seconds: float

    @property
    def operations_per_second(self) -> float:
        """A multiply-add counts as two; 0 for steps without any."""
        return 2 * self.row.macs / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Bytes of operands, results and weights, whether they come from a cache or not."""
        return self.row.moved / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Explanation:
    """The steps of the most recent run, in order.

    Attributes:
        steps: What was executed.
        arena_bytes: Memory of one run for what lies between inputs and outputs.
        threads: How many threads a run may use now (lowprec.set_num_threads).
    """

    steps: tuple[StepRow, ...]
    arena_bytes: int
    threads: int = 1

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Return the operators that ran through ONNX's reference implementation, sorted."""
        return tuple(sorted({step.op for step in self.steps if not step.native}))

    def __str__(self) -> str:
        heads = ("#", "operator", "kernel", "isa", "output", "Mmac", "refused")
        table = [heads] + [
            (
                str(number),
                step.op,
                step.kernel,
                step.isa,
                step.output,
                f"{step.macs / 1e6:.2f}" if step.macs else "",
                step.refused,
            )
            for number, step in enumerate(self.steps)
        ]
        widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        several = "s" if self.threads != 1 else ""
        return "\n".join([*lines, f"{self.threads} thread{several}"])
