"""`python -m worldmodel_v COMMAND …`: the commands `wm-…`; without a command, a list of them."""

from worldmodel_v.cli.all import main

if __name__ == "__main__":
    main()
