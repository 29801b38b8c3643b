"""Basic blocks, in an order in which threads that parted meet again.

The interpreter always runs the earliest block that has threads in it. That brings threads together at the first point all of
them must pass, as a GPU does, if blocks stand in topological order with each loop in one piece: a weak topological order
(Bourdoncle, "Efficient chaotic iteration strategies with widenings", 1993). A loop entered again from several places gets one
latch at its end, where its threads wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .registry import ends_block

if TYPE_CHECKING:
    from .syntax import Instruction, Kernel

Graph = dict[int, list[int]]


@dataclass
class BasicBlock:
    """terminator: a last instruction that may lead elsewhere, to one of branches; next: the block that follows in the text."""

    instructions: list[Instruction] = field(default_factory=list)
    terminator: Instruction | None = None
    next: int | None = None
    branches: list[int] = field(default_factory=list)

    def successors(self) -> list[int]:
        return [*([] if self.next is None else [self.next]), *self.branches]


def basic_blocks(kernel: Kernel) -> list[BasicBlock]:
    """The blocks that can be reached, in the order in which they run; the first is the entry, the last one the end."""
    blocks = split(kernel)
    end = len(blocks) - 1
    reached = set(postorder([0], {index: block.successors() for index, block in enumerate(blocks)}, set())) - {end}
    order = [*_Order(blocks, reached).arrange(sorted(reached)), end]
    position = {block: index for index, block in enumerate(order)}
    arranged = [blocks[index] for index in order]
    for block in arranged:
        block.next = None if block.next is None else position[block.next]
        block.branches = [position[branch] for branch in block.branches]
    return arranged


def split(kernel: Kernel) -> list[BasicBlock]:
    code = kernel.instructions
    starts = {0, *kernel.labels.values(), *(index + 1 for index, one in enumerate(code) if ends_block(one))}
    starts = sorted(start for start in starts if start < len(code))
    number = {start: index for index, start in enumerate(starts)}
    # A label after the last instruction leads to the end, as the last instruction does.
    number[len(code)] = len(starts)
    blocks = []
    for start, end in zip(starts, [*starts[1:], len(code)]):
        block = BasicBlock(code[start:end])
        if ends_block(code[end - 1]):
            block.terminator = block.instructions.pop()
            block.branches = [number[kernel.labels[label]] for label in branch_labels(kernel, block.terminator)]
        leaves = block.terminator is not None and block.terminator.opcode in ("bra", "brx", "ret", "exit", "trap")
        if not leaves or block.terminator.predicate is not None:
            block.next = number[end]
        blocks.append(block)
    return [*blocks, BasicBlock()]


def branch_labels(kernel: Kernel, instruction: Instruction) -> list[str]:
    if instruction.opcode == "brx":
        return kernel.branch_targets[instruction.operands[1]]
    return [instruction.operands[0]] if instruction.opcode == "bra" else []


class _Order:
    def __init__(self, blocks: list[BasicBlock], reached: set[int]) -> None:
        self.blocks = blocks
        self.predecessors: Graph = {index: [] for index in range(len(blocks))}
        for index in reached:
            for successor in blocks[index].successors():
                self.predecessors[successor].append(index)

    def arrange(self, nodes: list[int]) -> list[int]:
        """Weak topological order of some nodes and of the latches that their loops are given."""
        inside = set(nodes)
        graph = {node: [s for s in self.blocks[node].successors() if s in inside] for node in nodes}
        order: list[int] = []
        for component in components(graph):
            order += self.loop(component) if len(component) > 1 or component[0] in graph[component[0]] else component
        return order

    def loop(self, members: list[int]) -> list[int]:
        """Header, body, and a latch unless only one block leads back and nowhere else."""
        inside = set(members)
        entered = [node for node in members if node == 0 or not inside.issuperset(self.predecessors[node])]
        header = min(entered or members)
        back = [self.blocks[node] for node in members if header in self.blocks[node].successors()]
        body = self.arrange(sorted(inside - {header}))
        if len(back) == 1 and len(back[0].successors()) == 1:
            return [header, *body]
        latch = len(self.blocks)
        self.blocks.append(BasicBlock(next=header))
        for block in back:
            block.next = latch if block.next == header else block.next
            block.branches = [latch if branch == header else branch for branch in block.branches]
        return [header, *body, latch]


def components(graph: Graph) -> list[list[int]]:
    """Strongly connected components in topological order (Kosaraju)."""
    backward: Graph = {node: [] for node in graph}
    for node, successors in graph.items():
        for successor in successors:
            backward[successor].append(node)
    found: set[int] = set()
    return [
        component for root in reversed(postorder(list(graph), graph, set())) if (component := postorder([root], backward, found))
    ]


def postorder(roots: list[int], graph: Graph, seen: set[int]) -> list[int]:
    """Nodes reached from roots and not seen yet, each after those it leads to, but for cycles."""
    order: list[int] = []
    for root in roots:
        stack = [] if root in seen else [(root, iter(graph[root]))]
        seen.add(root)
        while stack:
            node, successors = stack[-1]
            following = next((s for s in successors if s not in seen), None)
            if following is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(graph[following])))
    return order
