"""Program for the server's interpreter: infer a scan with MONAI Label's own app, and print its JSON and file."""

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
