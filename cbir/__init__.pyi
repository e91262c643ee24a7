from cbir.search import Searcher as Searcher
