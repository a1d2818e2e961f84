"""linear_assignment: the optimum of scipy, the reference's very choice, masks, edges and graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.reference.linear_assignment import linear_assignment as reference
from tests.nativeops.checks import one_and_two_threads, strided
from tests.nativeops.op_checks import assert_same, check_graph, check_op, require_native

OP = torch.ops.detc.linear_assignment.default


def costs(seed: int, problems: int, rows: int, cols: int, whole: bool = False) -> Tensor:
    """Random costs; whole numbers of a small range give many ties."""
    g = torch.Generator().manual_seed(seed)
    if whole:
        return torch.randint(0, 5, (problems, rows, cols), generator=g).float()
    return torch.randn(problems, rows, cols, generator=g) * 3


def total(cost_NM: Tensor, col_of_row_N: Tensor) -> float:
    rows = torch.nonzero(col_of_row_N >= 0)[:, 0]
    return float(cost_NM.double()[rows, col_of_row_N[rows]].sum())


def assert_is_a_matching(col_of_row: Tensor, row_of_col: Tensor) -> None:
    """Both directions say the same, so no row and no column is used twice."""
    for cols, rows in zip(col_of_row.tolist(), row_of_col.tolist(), strict=True):
        assert {(i, j) for i, j in enumerate(cols) if j >= 0} == {
            (i, j) for j, i in enumerate(rows) if i >= 0
        }


def test_the_native_kernel_is_tested() -> None:
    require_native("linear_assignment")


@pytest.mark.parametrize("whole", [False, True])
def test_cost_of_scipy_on_ten_thousand_problems(whole: bool) -> None:
    sizes = np.random.default_rng(0).integers(1, 16, (50, 2))
    for seed, (rows, cols) in enumerate(sizes.tolist()):
        cost = costs(seed, 100, rows, cols, whole)
        found = ops.linear_assignment(cost)
        assert_is_a_matching(found.col_of_row, found.row_of_col)
        assert ((found.col_of_row >= 0).sum(1) == min(rows, cols)).all()
        for problem, choice in zip(cost, found.col_of_row, strict=True):
            table = problem.double().numpy()
            best = table[linear_sum_assignment(table)].sum()
            assert total(problem, choice) == pytest.approx(best, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(0, 12),
    cols=st.integers(0, 12),
    problems=st.integers(0, 4),
    whole=st.booleans(),
    forbidden=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_equals_the_reference_with_masks(
    seed: int, rows: int, cols: int, problems: int, whole: bool, forbidden: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    cost = costs(seed, problems, rows, cols, whole)
    cost[torch.rand(cost.shape, generator=g) < forbidden] = torch.inf
    row_valid = torch.rand(problems, rows, generator=g) < 0.8
    col_valid = torch.rand(problems, cols, generator=g) < 0.8
    got = ops.linear_assignment(cost, row_valid_BN=row_valid, col_valid_BM=col_valid)
    # the same choice, ties included: kernel and reference do the same arithmetic in the same order
    assert_same(got, reference(cost, row_valid, col_valid))
    assert_is_a_matching(*got)
    used = got.col_of_row >= 0
    assert (row_valid | ~used).all()
    picked = (
        cost.gather(2, got.col_of_row.clamp_min(0)[:, :, None])[:, :, 0]
        if cols
        else cost.new_zeros(used.shape)
    )
    assert picked[used].isfinite().all()


@pytest.mark.parametrize("shape", [(30, 7), (7, 30)])
def test_a_mask_is_a_smaller_problem(shape: tuple[int, int]) -> None:
    cost = costs(1, 20, *shape)
    col_valid = torch.arange(shape[1]) < shape[1] // 2
    got = ops.linear_assignment(cost, col_valid_BM=col_valid.expand(20, -1))
    small = ops.linear_assignment(cost[:, :, col_valid])
    for problem, a, b in zip(cost, got.col_of_row, small.col_of_row, strict=True):
        assert total(problem, a) == pytest.approx(total(problem, b), abs=1e-9)
    assert (got.row_of_col[:, ~col_valid] == -1).all()


def test_as_many_allowed_pairs_as_possible_then_the_cheapest() -> None:
    # Taking the cheapest pair (0, 0) would leave row 1 without a partner.
    cost = torch.tensor([[[0.0, 100.0], [1.0, torch.nan]]])
    assert ops.linear_assignment(cost).col_of_row.tolist() == [[1, 0]]
    cost[0, 1] = -torch.inf
    assert ops.linear_assignment(cost).col_of_row.tolist() == [[0, -1]]


def test_nothing_allowed_matches_nothing() -> None:
    for value in (torch.nan, torch.inf, -torch.inf, 1e300):
        cost = torch.full((2, 3, 4), value, dtype=torch.float64)
        found = ops.linear_assignment(cost)
        assert (found.col_of_row == -1).all()
        assert (found.row_of_col == -1).all()


def test_huge_and_tiny_costs() -> None:
    cost = torch.tensor([[[3e38, 1e-30], [-3e38, 2.0]]])
    found = ops.linear_assignment(cost)
    assert found.col_of_row.tolist() == [[1, 0]]


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0)])
def test_empty(shape: tuple[int, int, int]) -> None:
    found = ops.linear_assignment(torch.zeros(shape))
    assert found.col_of_row.shape == shape[:2]
    assert found.row_of_col.shape == (shape[0], shape[2])
    assert (found.col_of_row == -1).all()
    assert (found.row_of_col == -1).all()


def test_size_of_a_detection_transformer() -> None:
    cost = costs(0, 3, 900, 50)
    found = ops.linear_assignment(cost)
    for problem, choice in zip(cost, found.col_of_row, strict=True):
        table = problem.double().numpy()
        assert total(problem, choice) == pytest.approx(table[linear_sum_assignment(table)].sum(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    cost = costs(3, 4, 6, 5, whole=True)
    assert_same(ops.linear_assignment(cost.to(dtype)), ops.linear_assignment(cost))


def test_not_contiguous_and_threads() -> None:
    cost = costs(4, 9, 8, 11)
    assert_same(ops.linear_assignment(strided(cost)), ops.linear_assignment(cost))
    assert_same(
        ops.linear_assignment(cost.transpose(1, 2)).row_of_col, ops.linear_assignment(cost).col_of_row
    )
    one_and_two_threads(lambda: ops.linear_assignment(cost))


def test_opcheck_and_graphs() -> None:
    cost, row_valid, col_valid = costs(5, 2, 4, 6), torch.rand(2, 4) < 0.7, torch.rand(2, 6) < 0.7
    check_op(OP, (cost, None, None), (cost, row_valid, col_valid), (cost[:, :0], None, None))
    check_graph(
        lambda c, r, m: ops.linear_assignment(c, row_valid_BN=r, col_valid_BM=m),
        (cost, row_valid, col_valid),
        "linear_assignment",
    )


def test_the_reference_goes_through_graphs_by_itself() -> None:
    class Reference(torch.nn.Module):
        def forward(self, cost: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
            return reference(cost, None, valid)

    cost, valid = costs(6, 2, 5, 3), torch.tensor([[True, True, False], [True, False, False]])
    exported = torch.export.export(Reference(), (cost, valid))
    assert_same(exported.module()(cost, valid), reference(cost, None, valid))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, N, M\]"):
        ops.linear_assignment(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="col_valid"):
        ops.linear_assignment(torch.zeros(1, 3, 4), col_valid_BM=torch.ones(1, 3, dtype=torch.bool))
