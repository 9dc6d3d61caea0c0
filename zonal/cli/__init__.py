"""The command line: reads words, prints sentences, decides nothing."""
