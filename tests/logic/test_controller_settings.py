"""Settings are validated whole, and every refusal names file, key and cure."""

from pathlib import Path

import pytest

from isochrone.controller.settings import ControllerSettings, LogFormat, known_keys, load_settings
from isochrone.copies.schedule import Schedule
from isochrone.model.errors import RefusedError

EXAMPLES = Path(__file__).parents[2] / "examples"
MINIMAL = '[controller]\nname = "a"\n[pool]\npath = "pool"\n'


def schedule(**keys: str) -> str:
    """A settings file with one schedule, of which some keys are others."""
    values = {"name": '"hourly"', "volumes": '["db"]', "every": '"1h"', "keep": "24", **keys}
    return MINIMAL + "[[copy.schedule]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def load(tmp_path: Path, text: str) -> ControllerSettings:
    path = tmp_path / "a.toml"
    path.write_text(text)
    return load_settings(path)


def refusal(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        load(tmp_path, text)
    return caught.value.message.splitlines()


def test_two_keys_are_enough_and_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL)
    assert settings.pool.track_size == 4096
    assert settings.pool.preallocate
    assert settings.controller.log_format is LogFormat.JSON
    assert settings.exposed_addresses() == []
    assert {str(settings.nbd.listen[0]), str(settings.link.listen[0]), str(settings.api.listen[0])} == {
        "tcp:127.0.0.1:10809",
        "tcp:127.0.0.1:7481",
        "tcp:127.0.0.1:7480",
    }


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL).pool.path == tmp_path / "pool"


def test_sizes_are_text_with_units(tmp_path: Path) -> None:
    settings = load(
        tmp_path, MINIMAL + 'size = "1.5GiB"\ntrack_size = "64k"\n[capture]\nside_file_max = 1048576'
    )
    assert settings.pool.size == 3 << 29
    assert settings.pool.track_size == 65536
    assert settings.capture.side_file_max == 1 << 20


def test_an_address_that_other_hosts_reach_is_named(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL + '[link]\nlisten = ["tcp:0.0.0.0:7481", "tcp:[::1]:7481"]')
    assert settings.exposed_addresses() == ["link.listen = tcp:0.0.0.0:7481"]


@pytest.mark.parametrize(
    ("text", "key", "cure"),
    [
        (MINIMAL + "pth = 3", "pool.pth", "did you mean pool.path?"),
        (MINIMAL + "side_file_max = 3", "pool.side_file_max", "did you mean capture.side_file_max?"),
        (MINIMAL + "qqq = 3", "pool.qqq", "known are path, size"),
        (MINIMAL + "[nbbd]\n", "nbbd", "did you mean [nbd]?"),
        (MINIMAL + "[xyzzy]\n", "xyzzy", "known are controller, pool"),
        ("size = 4\n" + MINIMAL, "size", "put it below [pool]"),
        ("[pool]\npath = 'p'", "controller", "write a section [controller] with name"),
        ("[pool]\n[controller]\nname = 'a'", "pool.path", "write the folder of the pool"),
        ("pool = 3\n[controller]\nname = 'a'", "pool", "write [pool]"),
        (MINIMAL.replace('"a"', '"a b"'), "controller.name", "use 1 to 64 letters"),
        (MINIMAL + "size = '12 bananas'", "pool.size", "write for example"),
        (MINIMAL + "size = true", "pool.size", "write for example"),
        (MINIMAL + "size = 4096", "pool.size", "as in 100GiB"),
        (MINIMAL + "track_size = 5000", "pool.track_size", "write 4KiB, 8KiB"),
        (MINIMAL + "track_size = '128KiB'", "pool.track_size", "a power of two from 4KiB to 64KiB"),
        (MINIMAL + "[nbd]\nblock_size_min = 7", "nbd.block_size_min", "write 1 or 512"),
        (MINIMAL + "[nbd]\nlisten = ['10809']", "nbd.listen", "tcp:127.0.0.1:7074"),
        (MINIMAL + "[nbd]\nlisten = ['tcp:a:99999']", "nbd.listen", "use 1 to 65535"),
        (MINIMAL + "[nbd]\nlisten = 'unix:x'", "nbd.listen", "an absolute path"),
        (MINIMAL + f"[nbd]\nlisten = 'unix:/{'x' * 120}'", "nbd.listen", "choose a shorter one"),
        (MINIMAL + "[nbd]\nlisten = []", "nbd.listen", '"unix:/path" or'),
        (MINIMAL + "[nbd]\nlisten = ['unix:/a', 'unix:/a']", "nbd.listen", "leave it there once"),
        (MINIMAL + "[nbd]\nreceive_budget = '1MiB'", "nbd.receive_budget", "at least 34MiB"),
        (MINIMAL + "[controller]", "", "correct that line"),
        (MINIMAL + "warn_percent = [80, 101]", "pool.warn_percent", "from 1 to 100"),
        (schedule(every='"3 fortnights"'), "copy.schedule, number 1: every", "write for example 90s"),
        (schedule(every='"0.5s"'), "copy.schedule, number 1: every", "from 1s to 366d"),
        (schedule(every="3600"), "copy.schedule, number 1: every", "as in 90s, 30m"),
        (schedule(keep="0"), "copy.schedule, number 1: keep", "from 1 to 1024"),
        (schedule(volumes="[]"), "copy.schedule, number 1: volumes", 'as in ["db", "wal"]'),
        (schedule(volumes='["db", "db"]'), "copy.schedule, number 1: volumes", "leave it there once"),
        (schedule(name='"a@b"'), "copy.schedule, number 1: name", "use 1 to 64 letters"),
        (schedule(name=f'"{"n" * 41}"'), "copy.schedule, number 1: name", "at most 40"),
        (schedule(kep="3"), "copy.schedule, number 1: kep", "did you mean keep?"),
        (schedule() + schedule().removeprefix(MINIMAL), "copy.schedule", "hourly is there twice"),
        (MINIMAL + "[copy]\nschedules = 3", "copy.schedules", "did you mean copy.schedule?"),
    ],
)
def test_a_fault_names_file_key_and_cure(tmp_path: Path, text: str, key: str, cure: str) -> None:
    lines = refusal(tmp_path, text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{tmp_path}/a.toml: {key}")
    assert cure in lines[0]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    lines = refusal(tmp_path, MINIMAL + "size = 'x'\n[nbd]\nblock_size_min = 2\n[api]\nlisten = 'y'\n")
    assert [line.split(": ")[1] for line in lines] == ["pool.size", "nbd.block_size_min", "api.listen"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"nowhere\.toml: cannot be read"):
        load_settings(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("name", ["primary-a", "primary-b", "secondary"])
def test_the_examples_are_valid(name: str) -> None:
    load_settings(EXAMPLES / f"{name}.toml")


def test_the_full_example_says_every_default_and_every_key() -> None:
    text = (EXAMPLES / "primary-a.toml").read_text()
    missing = [
        key for key in known_keys() if f"\n{key.split('.')[1]} = " not in text and f"[[{key}]]" not in text
    ]
    assert missing == ["pool.tracks_path", "capture.spill_path"]


def test_schedules_are_in_the_order_they_are_written(tmp_path: Path) -> None:
    second = schedule(name='"daily"', every='"1d"', keep="7").removeprefix(MINIMAL)
    first, last = [section.schedule() for section in load(tmp_path, schedule() + second).copy_.schedule]
    assert first == Schedule("hourly", ("db",), 3600 * 10**9, 24)
    assert (last.name, last.every_ns, last.keep) == ("daily", 86_400 * 10**9, 7)


def test_a_pool_warns_at_three_levels_unless_it_is_told_others(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL).pool.warn_percent == [80, 90, 95]
    assert load(tmp_path, MINIMAL + "warn_percent = []").pool.warn_percent == []
