"""Where the warehouse is: what `profiles.yml` says of a target, to dbt and the loader alike."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.errors import LoadError

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Target:
    """One target of the profile. Its settings are rendered when they are asked for."""

    name: str
    profile: Path
    settings: dict[str, Any]

    def __getitem__(self, setting: str) -> str:
        """Return a setting as text. Raises LoadError where it is not there, or no template."""
        with _understood(self.profile):
            return _render(str(self.settings[setting]), self.profile)

    def chosen(self, *settings: str) -> dict[str, str]:
        """Return those of some settings that are there, but for blank ones."""
        found = {setting: self[setting] for setting in settings if setting in self.settings}
        return {setting: value for setting, value in found.items() if value}


def read_target(name: str | None) -> Target:
    """Read a target (default: the profile's own) from `profiles.yml`.

    Raises LoadError where the file cannot be read or is no profile for ontime, and for a target
    that is not there.
    """
    import yaml

    path = Path(os.environ.get("DBT_PROFILES_DIR", PROJECT), "profiles.yml")
    with _understood(path):
        profile = yaml.safe_load(path.read_text())["ontime"]
        name = name or _render(profile["target"], path)
        outputs = profile["outputs"]
        if name not in outputs:
            raise LoadError(f"no target {name!r} in {path}: expected one of {', '.join(outputs)}")
        return Target(name, path, dict(outputs[name]))


def _render(text: str, path: Path) -> str:
    """Render a template as dbt does, as far as a profile needs it."""
    import jinja2

    def env_var(name: str, default: str | None = None) -> str:
        value = os.environ.get(name, default)
        if value is None:
            raise LoadError(f"{path} asks for the environment variable {name}: set it")
        return value

    return jinja2.Template(text, undefined=jinja2.StrictUndefined).render(env_var=env_var)


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Turn what is wrong with a profile into a LoadError."""
    import jinja2
    import yaml

    try:
        yield
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, jinja2.TemplateError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise LoadError(f"{path} is not a dbt profile for ontime: {reason}") from error
