"""Two sites and a server in FLARE's simulator: ``python -m tests.apps.federated.run_simulator FOLDER BUNDLE``."""

import json
import sys
from pathlib import Path

from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.recipe import SimEnv

from monai_mil_ext.apps.federated import CLASS_ALLOW_LIST, federated_job

from .federated_parts import SITES

ROUNDS, EPOCHS = 2, 2


def main(folder, bundle):
    """Write two sites and the files of their administrators, and run a job."""
    for seed, scale in ((1, 1.0), (2, 5.0)):
        job, settings, options = SITES[bundle](folder / f"site-{seed}", seed, scale)
    job.write(folder / "job/model.json")
    local = folder / "simulator/mil/local"
    local.mkdir(parents=True)
    own = json.dumps(settings).replace(str(folder / "site-2"), f"{folder}/{{site}}")
    (local / "monai_mil_ext.json").write_text(own)
    allowed = {"format_version": 2, "class_allow_list": [*DEFAULT_CLASS_ALLOW_LIST, *CLASS_ALLOW_LIST]}
    (local / "resources.json").write_text(json.dumps(allowed))
    recipe = federated_job(folder / "job/model.json", 2, ROUNDS, EPOCHS, options)
    # a thread for each site: with fewer, a site's process, and its anchor, would end after each task
    recipe.execute(SimEnv(num_clients=2, num_threads=2, workspace_root=str(folder / "simulator")))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2])
