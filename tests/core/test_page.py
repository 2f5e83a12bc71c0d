"""Pages of runs: what is done once for all who see one."""

from runcast.core.page import ChangePage
from runcast.core.position import Position
from runcast.core.run import RunChange
from runcast.core.scope import compile_scopes
from runcast.core.selector import Selector
from runcast.core.view import View
from tests.support.runs import make_run


def test_a_page_is_judged_once_for_all_who_see_the_same_of_it() -> None:
    runs = [make_run(id=f"run_{number}", tags=(f"tag_{number % 2}",)) for number in range(4)]
    page = ChangePage(tuple(RunChange(run.facets, run) for run in runs), Position(1, 9), None)

    def view(tag: str) -> View:
        return View(Selector("env_1"), compile_scopes([f"read:tags:{tag}"]))

    seen = page.seen_through(view("tag_1"))
    assert [frame.run_id for frame in seen] == ["run_1", "run_3"]
    assert page.seen_through(view("tag_1")) is seen
    assert [frame.run_id for frame in page.seen_through(view("tag_0"))] == ["run_0", "run_2"]
