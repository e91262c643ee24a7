"""From ranked results and judgements to metrics, intervals, and figures that explain them."""
