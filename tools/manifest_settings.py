"""Whether each service would take the settings that its manifests give it: its own code reads them, from the file and the variables that its container has."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from manifest_objects import Object, Objects, found, name_of, services

from bank_gateway.settings import BankGatewaySettings
from coordinator.settings import CoordinatorSettings
from dlt_gateway.settings import DltGatewaySettings
from event_journal.settings import JournalSettings
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.settings import ServiceSettings, load
from notary.settings import NotarySettings

PREFIX: Final = "LOCKSTEP_"
#: What a variable that the cluster fills in holds here.
_FILLED_IN: Final = "filled-in-by-the-cluster"

SETTINGS: Final[Mapping[str, type[ServiceSettings]]] = {
    "coordinator": CoordinatorSettings,
    "dlt-gateway": DltGatewaySettings,
    "bank-gateway": BankGatewaySettings,
    "notary": NotarySettings,
    "event-journal": JournalSettings,
}


def findings(objects: Objects) -> Iterator[str]:
    """What the services would refuse."""
    seen = {each["metadata"]["name"] for each in services(objects)}
    yield from (f"Deployment/{name}: is not there" for name in sorted(set(SETTINGS) - seen))
    for each in services(objects):
        yield from (f"{name_of(each)}: {finding}" for finding in _refused(objects, each))


def _refused(objects: Objects, deployment: Object) -> Iterator[str]:
    kind, pod = SETTINGS[deployment["metadata"]["name"]], deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {each["name"]: each.get("value", _FILLED_IN) for each in container.get("env", ())}
    for reference in container.get("envFrom", ()):
        held = found(objects, "ConfigMap", reference["configMapRef"]["name"])
        if held is None:
            yield f"ConfigMap {reference['configMapRef']['name']} is not there"
            continue
        for name in held["data"]:
            # A variable of no setting is not noticed by the service.
            if not name.startswith(PREFIX) or name.removeprefix(PREFIX).split("__")[0].lower() not in kind.model_fields:
                yield f"{name} overrides no setting"
        variables.update(held["data"])
    (volume,) = (each for each in pod["volumes"] if each["name"] == "settings")
    settings = found(objects, "ConfigMap", volume["configMap"]["name"])
    if settings is None:
        yield f"ConfigMap {volume['configMap']['name']} is not there"
        return
    with tempfile.TemporaryDirectory() as folder, _environment(variables):
        path = Path(folder, "settings.yaml")
        path.write_text(settings["data"]["settings.yaml"])
        try:
            taken = load(kind, ["--config", str(path)])
            if isinstance(taken, CoordinatorSettings):
                taken.check()
        except FieldInvalid as error:
            yield str(error)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """This process has a container's variables, and no other of the services'."""
    before = dict(os.environ)
    for name in [each for each in os.environ if each.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
