"""Run by the server's interpreter: MONAI Label's own app asked for a scan; prints its JSON and the file."""

import json
import os
import sys

CONF = {"models": "scan_mil", "zoo_source": "local", "skip_trainers": "true"}


def main(app_dir, studies, image):
    os.environ["MONAI_LABEL_AUTO_UPDATE_SCORING"] = "false"
    from monailabel.interfaces.utils.app import app_instance

    app = app_instance(app_dir, studies, CONF)
    model = app.info()["models"]["scan_mil"]
    answer = app.infer({"model": "scan_mil", "image": image, "device": "cpu"})
    info = {key: model[key] for key in ("type", "labels", "dimension")}
    print(json.dumps({"info": info, **answer}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
