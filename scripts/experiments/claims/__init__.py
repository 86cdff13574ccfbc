"""The claims of the papers, each with a small experiment on the heads with lesions."""
