"""Stop strings against a search of the whole text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sanbai.generation.stop_strings import StopStrings


@settings(deadline=None)
@given(
    st.lists(st.text("abc", max_size=4), max_size=12),
    st.lists(st.text("abc", max_size=4), max_size=3),
)
def test_stop_strings_cut_any_text_in_any_pieces_as_a_search_of_the_whole_does(
    pieces: list[str], strings: list[str]
) -> None:
    stops = StopStrings(strings)
    shown = []
    for piece in pieces:
        shown.append(stops.push(piece))
        if stops.found:
            break
    shown.append(stops.finish())
    whole, text = "".join(pieces), "".join(shown)
    wanted = [string for string in strings if string]
    assert stops.found == any(string in whole for string in wanted)
    assert whole.startswith(text)
    assert not any(string in text for string in wanted)
    assert text == whole or any(whole[len(text) :].startswith(string) for string in wanted)
