from cbir.search.searcher import Searcher as Searcher
