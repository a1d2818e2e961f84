"""``detc::linear_assignment``."""

from __future__ import annotations

from typing import NamedTuple

import torch

from detc.nativeops.ops._common import check, check_bool, check_device, check_floating
from detc.nativeops.reference.linear_assignment import linear_assignment as reference
from detc.nativeops.registry import native_op


class Assignment(NamedTuple):
    """Both directions of a matching; -1 where unmatched."""

    col_of_row: torch.Tensor  # [B, N] int64
    row_of_col: torch.Tensor  # [B, M] int64


_op = native_op(
    "linear_assignment(Tensor cost, Tensor? row_valid, Tensor? col_valid) -> (Tensor, Tensor)",
    reference=reference,
    fake=lambda cost, row_valid, col_valid: (
        cost.new_empty(cost.shape[:2], dtype=torch.int64),
        cost.new_empty((cost.shape[0], cost.shape[2]), dtype=torch.int64),
    ),
)


def linear_assignment(
    cost_BNM: torch.Tensor,
    *,
    row_valid_BN: torch.Tensor | None = None,
    col_valid_BM: torch.Tensor | None = None,
) -> Assignment:
    """Minimum-cost one-to-one matching of every problem of a batch, without a host copy.

    Args:
        cost_BNM: costs (any floating dtype; the search runs in float64). A pair whose cost is not finite is
            never matched.
        row_valid_BN, col_valid_BM: who takes part (bool), all when None: padded ground truth is masked, not
            sliced.

    Returns:
        The column of each row and the row of each column (int64, -1: unmatched). As many pairs are matched
        as the allowed ones permit, and among those matchings the cheapest: the optimum of
        ``scipy.optimize.linear_sum_assignment`` where every pair is allowed. Ties go to the lower index, on
        every device alike. Not differentiable.

    Raises:
        ValueError: shapes or devices that do not fit. TypeError: costs that are no floating-point numbers, masks
            that are not bool.

    Method: shortest augmenting paths (Jonker and Volgenant 1987; Crouse 2016).
    """
    check("linear_assignment", "cost", cost_BNM, "[B, N, M]")
    check_floating("linear_assignment", "cost", cost_BNM)
    check_device("linear_assignment", cost_BNM, row_valid_BN, col_valid_BM)
    B, N, M = cost_BNM.shape
    for name, valid, size in (("row_valid", row_valid_BN, N), ("col_valid", col_valid_BM, M)):
        if valid is None:
            continue
        check_bool("linear_assignment", name, valid)
        if valid.shape != (B, size):
            raise ValueError(
                f"linear_assignment: {name} must be {(B, size)} for a cost of {(B, N, M)}, got {tuple(valid.shape)}"
            )
    return Assignment(*_op(cost_BNM.detach(), row_valid_BN, col_valid_BM))
