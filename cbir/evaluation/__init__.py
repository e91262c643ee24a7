"""From ranked results and judgements to metrics, intervals and what explains them."""
