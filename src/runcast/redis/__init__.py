"""All that faces Redis or Valkey: streams of chunks, and the news of them between gateways."""
