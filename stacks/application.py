"""The consumers' configuration per ring, from pins and rendered files. The only stack that a rotation changes."""

from __future__ import annotations

from pathlib import Path

from modules.app_config import AppConfig, Files
from modules.cdk import App, TerraformOutput
from modules.declarations import Estate
from modules.resource import Stack
from modules.where import here
from rotation import pins
from rotation.manifest import Consumer
from stacks.environments import Environment
from stacks.state import keep_state

PART = "application"


class Application(Stack):
    """``consumers`` goes to the manifest. The output "deployed" is the generation of each secret at each place,
    {"<consumer>/<ring>": {"<secret>": generation}}: the rotation reads there what was applied."""

    def __init__(self, app: App, environment: Environment, estate: Estate, files: Files) -> None:
        super().__init__(app, environment.stack(PART))
        environment.configuration.provide(self)
        keep_state(self, environment.state)
        if environment.configured_by is not None and "foundation" in environment.provisioned:
            environment.configuration.config_place(self, environment.config, here())
        pinned = pins.load(files.find(pins_path(environment)))
        self.consumers: dict[str, Consumer] = {}
        deployed: dict[str, str] = {}
        for consumer in estate.consumers:
            config = AppConfig(
                self,
                environment.configuration,
                consumer,
                environment=environment.name,
                place=environment.config,
                files=files,
                pinned=pinned,
            )
            self.consumers[consumer.name] = config.declared
            deployed |= config.deployed
        TerraformOutput(self, "deployed", value=deployed, static_id=True)


def pins_path(environment: Environment) -> Path:
    """Relative to the project."""
    return Path("stacks") / "pins" / f"{environment.name}.json"
