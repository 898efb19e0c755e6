"""When a partition asks for what is missing, and when it waits for what it has asked for."""

from __future__ import annotations

from readside.core.position import Position
from readside.projector.healing import Healing, Step


def at(lsn: int) -> Position:
    return Position(1, lsn, 1)


def test_a_wish_is_not_repeated_while_what_was_there_before_it_is_read() -> None:
    healing = Healing()
    assert healing.hole(100.0, unreachable=False, behind=at(20), newest=at(500)) is Step.ASK
    for lsn in range(21, 501):
        seen = healing.hole(100.0 + lsn, unreachable=False, behind=at(lsn), newest=at(900))
        assert seen is Step.WAIT
    assert healing.hole(700.0, unreachable=False, behind=at(501), newest=at(900)) is Step.ASK
    assert healing.hole(800.0, unreachable=False, behind=at(900), newest=at(950)) is Step.WAIT


def test_records_of_the_moment_of_the_wish_come_before_its_fulfilment() -> None:
    healing = Healing()
    assert healing.hole(100.0, unreachable=False, behind=at(20)) is Step.ASK
    assert healing.hole(100.5, unreachable=False, behind=at(21), newest=at(500)) is Step.WAIT
    assert healing.hole(106.0, unreachable=False, behind=at(400), newest=at(900)) is Step.WAIT
    assert healing.hole(107.0, unreachable=False, behind=at(501), newest=at(900)) is Step.ASK


def test_with_nothing_left_to_read_the_wish_is_repeated_after_a_while() -> None:
    healing = Healing()
    assert healing.hole(100.0, unreachable=False, newest=at(500)) is Step.ASK
    assert healing.hole(104.9, unreachable=False, newest=at(500)) is Step.WAIT
    assert healing.hole(105.0, unreachable=False, newest=at(500)) is Step.ASK


def test_the_answer_is_looked_for_once_a_second() -> None:
    healing = Healing()
    assert not healing.wants_answer(100.0)
    healing.hole(100.0, unreachable=False)
    assert healing.wants_answer(100.0)
    assert not healing.wants_answer(100.9)
    assert healing.wants_answer(101.0)
    assert healing.hole(101.0, unreachable=True) is Step.RESCAN
    assert healing.hole(102.0, unreachable=True) is Step.LOST


def test_the_log_is_read_to_its_end_before_anything_is_called_lost() -> None:
    healing = Healing()
    assert healing.hole(100.0, unreachable=False, behind=at(20), newest=at(500)) is Step.ASK
    assert healing.hole(101.0, unreachable=True, behind=at(21), newest=at(500)) is Step.RESCAN
    # What was sent again stands behind everything that the log held then.
    assert healing.hole(103.0, unreachable=True, behind=at(20), newest=at(500)) is Step.WAIT
    assert healing.hole(104.0, unreachable=True, behind=at(500), newest=at(500)) is Step.WAIT
    assert healing.hole(105.0, unreachable=True, behind=at(501), newest=at(501)) is Step.LOST


def test_while_the_log_is_looked_through_its_tail_is_not_missing() -> None:
    healing = Healing()
    assert not healing.tail_missing(100.0)
    assert healing.tail_missing(101.5)
    assert healing.hole(101.5, unreachable=False, newest=at(500)) is Step.ASK
    assert healing.hole(102.5, unreachable=True, newest=at(500)) is Step.RESCAN
    assert not healing.tail_missing(104.0)
    healing.heard()
    assert not healing.tail_missing(110.0)
    assert healing.tail_missing(111.5)
    assert healing.hole(111.5, unreachable=True, newest=at(500)) is Step.LOST
