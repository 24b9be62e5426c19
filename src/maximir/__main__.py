from maximir.cli import main

main()
