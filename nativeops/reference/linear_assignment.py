"""Batched rectangular bipartite matching in plain torch.

The shortest-augmenting-path method (Jonker and Volgenant 1987; Crouse 2016), the one behind
``scipy.optimize.linear_sum_assignment``, written as a state machine: one step of it settles one column of
*every* problem of the batch, or walks one edge of the augmenting path back. So the batch shares one loop,
shapes are static, and the loop is a ``while_loop`` node in an exported or compiled graph.

Shape legend: B problems, n rows and m columns with n <= m (transposed beforehand when needed).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

INF = float("inf")
# Costs beyond this count as infinite: sums along a path then stay finite in float64.
LIMIT = 1e150


class _State(NamedTuple):
    """Everything that changes; every tensor is [B] or [B, …]."""

    row: torch.Tensor  # [B] the row being inserted, n when finished
    at_row: torch.Tensor  # [B] the row the search stands on
    walk_col: torch.Tensor  # [B] column of the walk back, -1 while searching
    reached: torch.Tensor  # [B] length of the shortest path so far
    row_dual: torch.Tensor  # [B, n]
    col_dual: torch.Tensor  # [B, m]
    distance: torch.Tensor  # [B, m] shortest path to each column
    parent: torch.Tensor  # [B, m] row before the column on that path
    settled: torch.Tensor  # [B, m] columns whose distance is final
    col_of_row: torch.Tensor  # [B, n]
    row_of_col: torch.Tensor  # [B, m]


def _indices(like: torch.Tensor, value: int, *size: int) -> torch.Tensor:
    return torch.full(size, value, dtype=torch.int64, device=like.device)


def _start(cost_Bnm: torch.Tensor) -> _State:
    B, n, m = cost_Bnm.shape
    return _State(
        row=_indices(cost_Bnm, 0, B),
        at_row=_indices(cost_Bnm, 0, B),
        walk_col=_indices(cost_Bnm, -1, B),
        reached=cost_Bnm.new_zeros(B),
        row_dual=cost_Bnm.new_zeros((B, n)),
        col_dual=cost_Bnm.new_zeros((B, m)),
        distance=cost_Bnm.new_full((B, m), INF),
        parent=_indices(cost_Bnm, -1, B, m),
        settled=torch.zeros((B, m), dtype=torch.bool, device=cost_Bnm.device),
        col_of_row=_indices(cost_Bnm, -1, B, n),
        row_of_col=_indices(cost_Bnm, -1, B, m),
    )


def _pick(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return table.gather(1, index[:, None]).squeeze(1)


def _step(state: _State, cost_Bnm: torch.Tensor) -> _State:
    """Settle one column (searching problems) or flip one edge (walking problems)."""
    B, n, m = cost_Bnm.shape
    s = state
    active = s.row < n
    walking = active & (s.walk_col >= 0)
    searching = active & ~walking

    # Search: relax every unsettled column from the row we stand on, settle the nearest.
    at_row = s.at_row.clamp_max(n - 1)
    costs_Bm = cost_Bnm.gather(1, at_row[:, None, None].expand(B, 1, m)).squeeze(1)
    reduced = s.reached[:, None] + costs_Bm - _pick(s.row_dual, at_row)[:, None] - s.col_dual
    closer = searching[:, None] & ~s.settled & (reduced < s.distance)
    distance = torch.where(closer, reduced, s.distance)
    parent = torch.where(closer, at_row[:, None], s.parent)
    nearest, col = torch.where(s.settled, INF, distance).min(1)
    reached = torch.where(searching, nearest, s.reached)
    columns = torch.arange(m, device=cost_Bnm.device)
    settled = s.settled | (searching[:, None] & (columns == col[:, None]))
    owner = _pick(s.row_of_col, col)
    found = searching & (owner < 0)

    # A free column ends the search: shift the duals of everything settled on the way.
    slack = (reached[:, None] - distance) * settled
    col_dual = torch.where(found[:, None], s.col_dual - slack, s.col_dual)
    # The rows on the tree are the one being inserted and the owners of the settled columns.
    owner_slack = torch.where(settled & (s.row_of_col >= 0), slack, 0.0)
    lift = torch.zeros_like(s.row_dual).scatter_add(1, s.row_of_col.clamp_min(0), owner_slack)
    inserted = torch.arange(n, device=cost_Bnm.device) == s.row[:, None]
    lift = torch.where(inserted, reached[:, None], lift)
    row_dual = torch.where(found[:, None], s.row_dual + lift, s.row_dual)

    # Walk: give the column to its parent, go on with the column that parent had.
    walk = s.walk_col.clamp_min(0)
    giver = _pick(parent, walk)
    handed = walking[:, None] & (columns == walk[:, None])
    row_of_col = torch.where(handed, giver[:, None], s.row_of_col)
    taker = walking[:, None] & (torch.arange(n, device=cost_Bnm.device) == giver[:, None])
    before = _pick(s.col_of_row, giver.clamp_min(0))
    col_of_row = torch.where(taker, walk[:, None], s.col_of_row)
    arrived = walking & (giver == s.row)

    next_row = s.row + arrived.long()
    return _State(
        row=next_row,
        at_row=torch.where(arrived, next_row, torch.where(searching & ~found, owner, s.at_row)),
        walk_col=torch.where(arrived, -1, torch.where(walking, before, torch.where(found, col, s.walk_col))),
        reached=torch.where(arrived, 0.0, reached),
        row_dual=row_dual,
        col_dual=col_dual,
        distance=torch.where(arrived[:, None], INF, distance),
        parent=parent,
        settled=settled & ~arrived[:, None],
        col_of_row=col_of_row,
        row_of_col=row_of_col,
    )


def _solve(cost_Bnm: torch.Tensor) -> _State:
    n = cost_Bnm.shape[1]
    if torch.compiler.is_compiling():
        from torch._higher_order_ops.while_loop import while_loop

        def unfinished(*state: torch.Tensor) -> torch.Tensor:
            return (state[0] < n).any()

        def body(*state: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(_step(_State(*state), cost_Bnm))

        return _State(*while_loop(unfinished, body, tuple(_start(cost_Bnm))))
    state = _start(cost_Bnm)
    while bool((state.row < n).any()):
        state = _step(state, cost_Bnm)
    return state


def penalised(
    cost_BNM: torch.Tensor, row_valid_BN: torch.Tensor | None, col_valid_BM: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Costs in float64, forbidden pairs priced above any allowed matching, and the allowed pairs."""
    cost = cost_BNM.detach().double()
    allowed = cost.abs() <= LIMIT
    if row_valid_BN is not None:
        allowed = allowed & row_valid_BN[:, :, None]
    if col_valid_BM is not None:
        allowed = allowed & col_valid_BM[:, None, :]
    if cost.shape[1] == 0 or cost.shape[2] == 0:
        return cost, allowed
    high = torch.where(allowed, cost, -INF).amax((1, 2))
    low = torch.where(allowed, cost, INF).amin((1, 2))
    spread = torch.where(high >= low, high - low, 0.0)
    price = torch.where(high >= low, high, 0.0) + (spread + 1) * min(cost.shape[1:])
    return torch.where(allowed, cost, price[:, None, None]), allowed


def linear_assignment(
    cost_BNM: torch.Tensor,
    row_valid_BN: torch.Tensor | None = None,
    col_valid_BM: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimum-cost one-to-one matching of every problem of the batch.

    Args:
        cost_BNM: costs. A pair whose cost is not finite (or beyond 1e150) is never matched.
        row_valid_BN: rows that take part (bool), all when None.
        col_valid_BM: columns that take part (bool), all when None.

    Returns:
        ``col_of_row_BN`` and ``row_of_col_BM`` (int64), -1 where unmatched. As many pairs as the allowed
        ones permit are matched, and among those matchings the cheapest is returned (computed in float64).
    """
    B, N, M = cost_BNM.shape
    if B == 0 or N == 0 or M == 0:
        return _indices(cost_BNM, -1, B, N), _indices(cost_BNM, -1, B, M)
    cost, allowed = penalised(cost_BNM, row_valid_BN, col_valid_BM)
    flipped = N > M
    state = _solve(cost.transpose(1, 2) if flipped else cost)
    col_of_row, row_of_col = state.col_of_row, state.row_of_col
    if flipped:
        col_of_row, row_of_col = row_of_col, col_of_row
    ok = allowed.gather(2, col_of_row.clamp_min(0)[:, :, None]).squeeze(2)
    col_of_row = torch.where(ok, col_of_row, -1)
    ok = allowed.gather(1, row_of_col.clamp_min(0)[:, None, :]).squeeze(1)
    return col_of_row, torch.where(ok, row_of_col, -1)
