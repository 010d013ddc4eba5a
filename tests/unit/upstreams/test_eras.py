from penstock.protocol.versions import Era
from penstock.upstreams.eras import Eras

M, L = Era.MODERN, Era.LEGACY


def test_nothing_is_assumed_of_an_unknown_server() -> None:
    eras = Eras()
    assert eras.choice == {M: None, L: None}
    assert eras.next_probe(M) is M
    assert eras.next_probe(L) is M
    assert eras.spoken() == ()
    assert repr(eras) == "<Eras modern unknown legacy unknown>"


def test_a_server_with_both_eras_is_spoken_to_in_its_callers() -> None:
    eras = Eras()
    eras.found(M, "2026-07-28", ("2026-07-28", "2025-06-18"))
    assert eras.choice == {M: M, L: L}
    assert eras.version(L) == "2025-06-18"
    assert eras.spoken() == (M, L)
    assert eras.spoken(L) == (L, M)


def test_a_legacy_caller_makes_a_modern_server_be_tried_once() -> None:
    eras = Eras()
    eras.found(M, "2026-07-28", ("2026-07-28",))
    assert eras.choice == {M: M, L: None}
    assert eras.next_probe(M) is None
    assert eras.next_probe(L) is L
    eras.missing(L)
    assert eras.choice == {M: M, L: M}
    assert eras.next_probe(L) is None


def test_a_legacy_server_serves_modern_callers_in_its_own_era() -> None:
    eras = Eras()
    eras.missing(M)
    assert eras.next_probe(M) is L
    eras.found(L, "2025-03-26")
    assert eras.choice == {M: L, L: L}
    assert eras.version(L) == "2025-03-26"
    eras.missing(L)
    assert eras.choice == {M: None, L: None}
    assert eras.next_probe(M) is None


def test_what_stopped_to_fit_is_forgotten() -> None:
    eras = Eras()
    eras.missing(M)
    eras.found(L, "2025-03-26")
    eras.forget()
    assert eras.next_probe(L) is M
    assert eras.version(L) == "2025-11-25"


def test_a_pinned_revision_is_never_probed_and_never_forgotten() -> None:
    eras = Eras("2025-06-18", {"modern": {"spoken": True, "version": "2026-07-28"}})
    for change in (eras.forget, lambda: eras.missing(L), lambda: eras.found(M, "2026-07-28")):
        change()
        assert eras.choice == {M: L, L: L}
        assert eras.version(L) == "2025-06-18"
    assert repr(eras) == "<Eras modern no legacy yes | pinned>"


def test_what_was_learned_survives_export_and_import() -> None:
    eras = Eras()
    eras.missing(M)
    eras.found(L, "2025-06-18")
    again = Eras(remembered=eras.export())
    assert repr(again) == repr(eras)
    assert again.version(L) == "2025-06-18"
    assert again.choice == eras.choice


def test_what_does_not_fit_is_not_imported() -> None:
    remembered = {
        "modern": {"spoken": "yes", "version": "2026-07-28"},
        "legacy": {"spoken": True, "version": "1999"},
        "x": 1,
    }
    assert Eras(remembered=remembered).choice == {M: None, L: None}
    assert Eras(remembered={"modern": 1}).choice == {M: None, L: None}
    assert Eras(remembered={}).has(M) is None
