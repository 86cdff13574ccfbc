"""Two sites and a server in FLARE's simulator: ``python -m tests.apps.federated.run_simulator FOLDER``."""

import json
import sys
from pathlib import Path

from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.recipe import SimEnv

from monai_mil_ext.apps.federated import CLASS_ALLOW_LIST, federated_job

from .federated_parts import OPTIONS, record, settings, write_site

ROUNDS, EPOCHS = 2, 2


def main(folder):
    """Write two sites and the files of their administrators, and run a job."""
    for seed, scale in ((1, 1.0), (2, 5.0)):
        write_site(folder / f"site-{seed}", seed, scale=scale)
    record().write(folder / "job/model.json")
    local = folder / "simulator/mil/local"
    local.mkdir(parents=True)
    (local / "monai_mil_ext.json").write_text(json.dumps(settings(f"{folder}/{{site}}")))
    allowed = {"format_version": 2, "class_allow_list": [*DEFAULT_CLASS_ALLOW_LIST, *CLASS_ALLOW_LIST]}
    (local / "resources.json").write_text(json.dumps(allowed))
    job = federated_job(folder / "job/model.json", 2, ROUNDS, EPOCHS, OPTIONS)
    # a thread for each site: with fewer, a site's process, and its anchor, would end after each task
    job.execute(SimEnv(num_clients=2, num_threads=2, workspace_root=str(folder / "simulator")))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
