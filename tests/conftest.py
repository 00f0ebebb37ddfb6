"""What every test shares: four virtual devices, strict ranks, the data folder."""

import os
from pathlib import Path

# XLA reads its flags when the backend starts, so this precedes the import of jax.
_FLAGS = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in _FLAGS:
    _FLAGS += " --xla_force_host_platform_device_count=4"
# Devices wait for each other 40 seconds, then end the process: too few on a busy
# machine.
_PATIENCE = "xla_cpu_collective_call_terminate_timeout_seconds"
if _PATIENCE not in _FLAGS:
    _FLAGS += f" --{_PATIENCE}=240"
os.environ["XLA_FLAGS"] = _FLAGS.strip()

import gc
import hashlib
import mmap
import platform
import shutil
import tempfile

import jax
import jaxlib
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

_FEW_OPTIMIZATIONS = "jax_disable_most_optimizations"
_OLD_EMITTERS = "xla_cpu_use_fusion_emitters"  # set to false: they compile faster
_MANY_MAPS = 25_000
_CACHE = "ONESHOT_TESTS_PROGRAMS"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data", metavar="DIR", help="folder of data files (or ONESHOT_DATA)"
    )
    parser.addoption(
        "--compile-cache",
        action="store_true",
        help="keep compiled programs between runs, not only during one",
    )
    parser.addoption(
        "--optimized",
        action="store_true",
        help="compile as users do; otherwise XLA leaves most optimizations out",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--optimized"):
        # Tests compile much and compute little: this saves a quarter of their time. The
        # variable is for the processes that tests start.
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update(_FEW_OPTIMIZATIONS, True)
        if _OLD_EMITTERS not in os.environ["XLA_FLAGS"] and _knows(_OLD_EMITTERS):
            os.environ["XLA_FLAGS"] += f" --{_OLD_EMITTERS}=false"
    # What jax keeps is seldom garbage, and much to look through.
    gc.set_threshold(100_000, 50, 100)
    # Many tests build the same small supernets, each with an engine of its own. Worker
    # processes of pytest-xdist inherit the variable, and so share the folder.
    if config.getoption("--compile-cache"):
        folder = config.cache.mkdir(f"jax-{jaxlib.__version__}-{_cpu_digest()}")
    elif _CACHE in os.environ:
        folder = Path(os.environ[_CACHE])
    else:
        folder = Path(tempfile.mkdtemp(prefix="oneshot-tests-"))
        os.environ[_CACHE] = str(folder)
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _knows(flag: str) -> bool:
    """Whether this XLA has a flag; one that it lacks would end the process."""
    library = Path(jaxlib.__file__).with_name("libjax_common.so")
    if not library.exists():
        return False
    with library.open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            # Ended on both sides: names that it no longer uses stand among others.
            return content.find(b"\0" + flag.encode() + b"\0") >= 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the laws of one supernet side by side, and each file in one process.

    What a supernet compiled can then be let go before the next one: a process that
    keeps thousands of programs runs out of memory maps, and XLA crashes.
    """
    places = [i for i, item in enumerate(items) if item.path.stem == "test_laws"]
    laws = sorted((items[i] for i in places), key=_supernet)
    for place, item in zip(places, laws, strict=True):
        items[place] = item
    for item in items:
        if "optimized" in item.fixturenames:
            item.add_marker("optimized")
        law = f"-{_supernet(item)}" if item.path.stem == "test_laws" else ""
        item.add_marker(pytest.mark.xdist_group(item.path.stem + law))


def _supernet(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return "mixed" if callspec is None else callspec.params.get("case", "mixed")


@pytest.fixture(scope="module", autouse=True)
def _let_programs_go():
    """Free what test files compiled before there are too many memory maps.

    Linux allows a process 65,530 of them by default; each program takes some.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
        gc.collect()


def _cpu_digest() -> str:
    # A program compiled for another CPU may crash here, so each has its own folder.
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    wanted = [x for x in lines if x.startswith(("model name", "flags", "Features"))]
    text = "\n".join([platform.machine(), platform.processor(), *sorted(set(wanted))])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of data files; a test that needs it skips where there is none."""
    named = request.config.getoption("--data") or os.environ.get("ONESHOT_DATA")
    if not named:
        pytest.skip("needs data files: name their folder by --data or ONESHOT_DATA")
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        pytest.skip(f"needs data files: {folder} is no folder")
    return folder


@pytest.fixture
def optimized(request: pytest.FixtureRequest):
    """Programs compiled with all optimizations: for rounding, and for long tests.

    By the older emitters still, which a process cannot leave; `--optimized` does.
    """
    jax.config.update(_FEW_OPTIMIZATIONS, False)
    yield
    few = not request.config.getoption("--optimized")
    jax.config.update(_FEW_OPTIMIZATIONS, few)


@pytest.fixture
def key() -> jax.Array:
    """A fixed random key."""
    return jax.random.key(0)
