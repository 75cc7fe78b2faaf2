"""`python -m visavis`: the command line."""

from visavis.pipeline.app import main

if __name__ == "__main__":
    main()
