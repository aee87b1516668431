"""`python -m lowprec.cli`."""

from lowprec.cli import main

main()
