import jax
import jax.numpy as jnp
import pytest
from etils import epath

from jaxcoder.profile import Profile


def traced(folder, steps, run, lengths):
    """Goes through a run; returns the numbers of the steps that were traced, and what was said."""
    said, seen = [], []
    product = jax.jit(lambda x: x @ x)
    with Profile(epath.Path(folder), steps, run, lengths.__getitem__, said.append) as profile:
        for step in run:
            profile.begin(step)
            result = product(jnp.ones((4, 4)))
            if profile._running is not None:
                seen.append(step)
            profile.end(step, result)
            done = list(folder.rglob("*.xplane.pb"))
            assert bool(done) == (len(seen) == steps), "written after the last of them"
    return seen, said


@pytest.mark.parametrize(
    ("run", "lengths", "steps"),
    [
        (range(0, 5), [8, 8, 8, 8, 8], [1, 2]),
        (range(0, 7), [8, 16, 8, 32, 16, 8, 32], [4, 5]),
        (range(3, 7), [8, 8, 8, 8, 8, 8, 8], [4, 5]),  # a run that goes on compiles again
    ],
)
def test_the_first_steps_in_a_row_that_compile_nothing_are_traced(tmp_path, run, lengths, steps):
    assert traced(tmp_path, 2, run, lengths) == (steps, [])
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_run_without_so_many_says_so_and_goes_on(tmp_path):
    said = []
    with Profile(epath.Path(tmp_path), 3, range(3), lambda _: 8, said.append) as profile:
        for step in range(3):
            profile.begin(step)
            profile.end(step, ())
    assert said == ["--profile_steps = 3: no trace, the run has not so many steps left"]
    assert not list(tmp_path.iterdir())


def test_what_ends_a_run_early_ends_its_trace(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        Profile(epath.Path(tmp_path), 3, range(9), lambda _: 8, print) as profile,
    ):
        profile.begin(0)
        profile.end(0, ())
        profile.begin(1)
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*.xplane.pb"))
    with jax.profiler.trace(str(tmp_path / "another")):
        pass
