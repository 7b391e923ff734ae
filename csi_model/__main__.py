"""``python -m csi_model`` is ``csi-model``."""

from csi_model.cli.main import main

if __name__ == "__main__":
    main()
