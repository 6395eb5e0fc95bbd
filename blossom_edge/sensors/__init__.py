"""From hardware, recordings or simulators to labelled windows. Knows neither torch nor the network."""
