from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readside.core.complaints import Complaints


def test_a_complaint_is_made_once_and_again_after_a_minute():
    complaints = Complaints()
    said = [now for now in range(1000, 1200) if complaints.worth_saying("down", float(now))]
    assert said == [1000, 1060, 1120, 1180]


def test_another_complaint_is_made_at_once():
    complaints = Complaints()
    assert complaints.worth_saying("down", 1000.0)
    assert complaints.worth_saying("out of disk", 1000.1)
    assert not complaints.worth_saying("down", 1000.2)


def test_after_a_success_the_same_complaint_is_new():
    complaints = Complaints()
    assert complaints.worth_saying("down", 1000.0)
    assert complaints.clear()
    assert not complaints.clear()
    assert complaints.worth_saying("down", 1000.1)


@given(st.lists(st.tuples(st.floats(0, 40), st.sampled_from("abc")), max_size=50))
def test_whatever_is_wrong_was_said_within_the_last_minute(happenings):
    complaints, now, said = Complaints(), 1000.0, {}
    for passed, text in happenings:
        now += passed
        if complaints.worth_saying(text, now):
            said[text] = now
        assert now - said[text] < 60.0
