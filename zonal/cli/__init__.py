"""The command line: reads arguments, prints sentences, decides nothing."""
