from forex_core.cli import main

main()
