"""The report: facts gathered from the artifacts of a run, and the pages, pictures and plots that present them."""
