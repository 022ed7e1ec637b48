"""A search over a space of overrides, by Optuna: which run comes next, and which is not worth finishing."""

from pathlib import Path
from typing import Any

import optuna

from vit_jax.errors import STOPPED, InputError
from vit_jax.runs.records import read_records
from vit_jax.sweeps.plan import Base, Run, plan_runs
from vit_jax.sweeps.space import Distribution, Overrides, shortened
from vit_jax.tasks import is_lower_better


class Search:
    """A queue of runs whose overrides Optuna chooses, from what it learns of those that ended.

    Optuna's study is a journal in the sweep's folder, or in a database. After a kill, the trials that were running
    are taken up again: their runs continue.
    """

    def __init__(
        self,
        folder: Path,
        base: Base,
        space: dict[str, Distribution],
        *,
        kind: str,
        trials: int,
        metric: str,
        pruner: str,
        seed: int,
        storage: str | None = None,
    ):
        """Open or create the study.

        Args:
            trials: number of runs in all.
            metric: that runs write, and that is to be high, or low if its name ends in "loss" or "ece".
            storage: URL of a database; None: a journal in the folder.

        Raises:
            InputError: the database can't be opened, or the study is of another space or metric.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder, self._base, self._space, self._metric = folder, base, space, metric
        self._study = _open(folder, storage, metric, {"space": repr(space), "metric": metric})
        there = self._study.get_trials(deepcopy=False)
        # Another seed after a restart: the same would repeat the first draws.
        sampling = hash((seed, len(there))) % 2**32
        if kind == "tpe":
            self._study.sampler = optuna.samplers.TPESampler(seed=sampling)
        else:
            self._study.sampler = optuna.samplers.RandomSampler(seed=sampling)
        pruners = optuna.pruners
        self._study.pruner = {
            "median": pruners.MedianPruner,
            "halving": pruners.SuccessiveHalvingPruner,
            "none": pruners.NopPruner,
        }[pruner]()
        self._unfinished = [trial for trial in there if not trial.state.is_finished()]
        self._new = trials - len(there)
        self.left = max(self._new, 0) + len(self._unfinished)
        self._active: dict[str, Any] = {}
        self._reported: dict[str, int] = {}

    def take(self) -> list[Run]:
        if self._unfinished:
            frozen = self._unfinished.pop(0)
            trial = optuna.trial.Trial(self._study, frozen._trial_id)
            reported = max(frozen.intermediate_values, default=0)
        elif self._new > 0:
            self._new -= 1
            trial = self._study.ask(_distributions(self._space))
            reported = 0
        else:
            return []
        (run,) = plan_runs(self._base, [self._overrides(trial.params)])
        trial.set_user_attr("run", run.name)
        self._active.setdefault(run.name, []).append(trial)
        self._reported[run.name] = reported
        return [run]

    def ended(self, run: Run, code: int, pruned: bool) -> None:
        trial = self._active[run.name].pop()
        if code == STOPPED and not pruned:
            return  # It stays open, and is taken up again.
        if pruned:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif code:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            value = self._values(run)
            if not value:
                names = sorted({name for record in read_records(self._folder / run.name) for name in record})
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                raise InputError(f"--metric={self._metric}: runs don't write it; there are {', '.join(names)}")
            self._study.tell(trial, value[max(value)])

    def unpromising(self, run: Run) -> bool:
        trial = self._active[run.name][-1]
        new = {step: value for step, value in self._values(run).items() if step > self._reported[run.name]}
        for step, value in sorted(new.items()):
            trial.report(value, step)
            self._reported[run.name] = step
        return bool(new and trial.should_prune())

    def _values(self, run: Run) -> dict[int, float]:
        records = read_records(self._folder / run.name)
        return {record["step"]: record[self._metric] for record in records if record.get(self._metric) is not None}

    def _overrides(self, params: dict[str, Any]) -> Overrides:
        return {key: shortened(value) if isinstance(value, float) else str(value) for key, value in params.items()}


def _open(folder: Path, storage: str | None, metric: str, about: dict[str, str]) -> Any:
    backends = optuna.storages
    try:
        if storage is None:
            opened = backends.JournalStorage(backends.journal.JournalFileBackend(str(folder / "optuna.journal")))
        else:
            opened = backends.RDBStorage(storage)
        direction = "minimize" if is_lower_better(metric) else "maximize"
        study = optuna.create_study(
            storage=opened, study_name=folder.absolute().name, direction=direction, load_if_exists=True
        )
    except Exception as error:  # A database's driver may raise anything.
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"--storage={storage}: the study can't be opened ({why})") from error
    known = study.user_attrs
    for key, text in about.items():
        if known.get(key, text) != text:
            raise InputError(f"{str(folder)!r} holds a search with another {key}: {known[key]}; choose another workdir")
        study.set_user_attr(key, text)
    return study


def _distributions(space: dict[str, Distribution]) -> dict[str, Any]:
    kinds = optuna.distributions
    make = {
        "log": lambda low, high: kinds.FloatDistribution(low, high, log=True),
        "uniform": lambda low, high: kinds.FloatDistribution(low, high),
        "int": lambda low, high: kinds.IntDistribution(low, high),
        "choice": lambda *values: kinds.CategoricalDistribution(values),
    }
    return {key: make[each.kind](*each.values) for key, each in space.items()}
