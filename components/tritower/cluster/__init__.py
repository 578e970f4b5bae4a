"""Jobs on a Kubernetes cluster: manifests, and the launcher that starts, follows, stops and collects them.

Nobody imports this package: `jobs.open_launcher` loads it by name, and pods run `agent.py`. README.md has its modules in order.
"""
