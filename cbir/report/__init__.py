"""The report: its facts, gathered once, and the pages made from them."""
