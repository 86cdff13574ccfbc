"""A stand-in for torchvision, on the PYTHONPATH of the one test that runs an app of MONAI Label's own."""
