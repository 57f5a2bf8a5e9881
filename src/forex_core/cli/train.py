"""`forex train`: weights for the neural member, from nothing or from others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import RenderableType
from rich.text import Text

from forex_core.cli.app import (
    JsonOption,
    PairOption,
    PathOption,
    SourceOption,
    VerboseOption,
    configure_logging,
    print_document,
    settings_from,
)
from forex_core.errors import ConfigError

if TYPE_CHECKING:
    from forex_core.report.document import Document

train = typer.Typer(
    help="Weights for the neural member: trained, fine-tuned, exported, registered.", no_args_is_help=True
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="JSON of the configuration; options beat what it says."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        metavar="DIR",
        help="Folder of checkpoints and weights. [default: one of its own in training in the data folder]",
    ),
]
RunNameOption = Annotated[
    str | None, typer.Option("--run-name", metavar="NAME", help="Name of the MLflow run and of its folder.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="What all draws begin from. [default: 0]")]
WeightsArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder of weights, as pretrain and finetune leave it.")
]


@train.command(
    epilog="""
**Examples**

    forex train pretrain
    forex train pretrain --epochs 20 --batch-size 16 --output-dir /srv/weights
    forex train pretrain --config training.json --learning-rate 5e-4 --pretrained embedded
"""
)
def pretrain(
    learning_rate: Annotated[float | None, typer.Option(help="Of the first steps. [default: 1e-3]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rates in a batch. [default: 32]")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most. [default: 100]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that make batches. [default: 1]")] = None,
    seed: SeedOption = None,
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Weights to begin from, or 'embedded'. [default: random ones]"),
    ] = None,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="Train the output layer of --pretrained alone.")
    ] = False,
    config: ConfigOption = None,
    output_dir: OutputOption = None,
    run_name: RunNameOption = None,
    register_as: Annotated[
        str | None, typer.Option("--register-as", metavar="NAME", help="Registered model; '' for none.")
    ] = "chronos",
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train a small Chronos-2 model on the ECB's reference rates up to 2017 and on generated series.

    A run that was ended goes on where the same --output-dir is given, and ends as if it had not been. Hours on two
    cores, minutes on a GPU; which of them there is, it finds out.
    """
    from forex_core.training.config import TrainingConfig, read

    told = {
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "epochs": epochs,
        "workers": workers,
        "seed": seed,
    }
    configure_logging(verbose)
    _require_extra()
    made = read(TrainingConfig, config, told)
    document = _run(
        "pretrain",
        config=made.model_dump(mode="json"),
        output_dir=output_dir,
        run_name=run_name,
        pretrained=pretrained,
        freeze_backbone=freeze_backbone,
        register_as=register_as or None,
        progress=not as_json,
    )
    print_document(document, as_json, _lines)


@train.command(
    epilog="""
**Examples**

    forex train finetune --pair USDCLP --path market.csv
    forex train finetune --pair USDCLP --source store --until 2025-06-30 --method full
    forex train finetune --pretrained amazon/chronos-2 --revision COMMIT --steps 500
"""
)
def finetune(
    pair: PairOption = None,
    source: SourceOption = None,
    path: PathOption = None,
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="Folder or hub name of a Chronos-2 model. [default: embedded]"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit or tag of a hub name.")] = None,
    method: Annotated[
        Literal["full", "lora"] | None,
        typer.Option(help="All weights, or low-rank adapters. [default: lora]"),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Last day to learn from. [default: the latest that leaves the promotion gate its origins, three years"
            " and a half]",
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the first step. [default: 1e-4]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Series in a batch. [default: 32]")] = None,
    steps: Annotated[int | None, typer.Option(help="Of the optimiser. [default: 200]")] = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    output_dir: OutputOption = None,
    run_name: RunNameOption = None,
    register_as: Annotated[
        str | None,
        typer.Option(
            "--register-as",
            metavar="NAME",
            help="Registered model; '' for none. [default: chronos- and the pair]",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fine-tune weights on a pair's data, by chronos-forecasting's own fit.

    Nothing uses the result until FOREX_CHRONOS__MODEL names it; then its forecasts are a challenger's, which becomes
    champion only by beating what is there on data later than --until.
    """
    from forex_core.training.config import FineTuningConfig, read

    told = {
        "pretrained": pretrained,
        "revision": revision,
        "method": method,
        "until": until,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "steps": steps,
        "seed": seed,
    }
    configure_logging(verbose)
    _require_extra()
    made = read(FineTuningConfig, config, told)
    settings = settings_from(pair, source, path)
    document = _run(
        "finetune",
        pair=settings.pair,
        source=settings.source,
        paths=list(settings.paths) or None,
        config=made.model_dump(mode="json"),
        output_dir=output_dir,
        run_name=run_name,
        register_as=register_as,
    )
    print_document(document, as_json, _lines)


@train.command(
    epilog="""
**Examples**

    forex train export data/training/pretrain_20261128_120000/weights
"""
)
def export(folder: WeightsArgument, as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Write the ONNX graph of weights anew, and say how far its answers are from theirs.

    What runs a forecast without torch. Training writes it already; this is for weights that lost it.
    """
    from forex_core.training.weights import reexport

    configure_logging(verbose)
    _require_extra()
    difference = reexport(folder)
    document = {"weights": str(folder), "parity": difference}
    print_document(
        document,
        as_json,
        lambda _: [Text(f"The graph's answers differ by {difference:.1e} at most, relatively.")],
    )


@train.command(
    epilog="""
**Examples**

    forex train register data/training/finetune_20261128_120000/weights --name chronos-usdclp
    forex train register weights --name chronos-usdclp --promote
"""
)
def register(
    folder: WeightsArgument,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the registered model.")] = "chronos",
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Point the alias champion at it: models:/NAME@champion is used then."),
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Register weights as the next version of a model, and say how a forecast uses them.

    Which weights a forecast is made with is part of its recipe: other ones are a challenger's, whatever their alias.
    """
    from forex_core.tracking.neural import register_folder

    configure_logging(verbose)
    settings = settings_from(None, None, None)
    version = register_folder(settings, folder, name, promote=promote)
    address = f"models:/{name}@champion" if promote else f"models:/{name}/{version.number}"
    document = {"model": name, "version": version.number, "promoted": promote, "address": address}
    print_document(
        document,
        as_json,
        lambda _: [Text(f"Registered as {version} of {name}; FOREX_CHRONOS__MODEL={address} uses it.")],
    )


def _run(name: str, **told: Any) -> Document:
    from flows import prepare_manual_run

    server = prepare_manual_run(settings_from(None, None, None).root, verbose=False)
    import flows.train

    server.wait()
    document = getattr(flows.train, name)(**told)
    assert isinstance(document, dict)  # Prefect hands on what a state holds
    return document


def _lines(document: Document) -> list[RenderableType]:
    from forex_core.report.text import training_lines

    return [Text(line) for line in training_lines(document)]


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("lightning", "peft", "onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"training needs {', '.join(missing)}, which is not installed; install the extra: pip install -e '.[train]'"
        )
