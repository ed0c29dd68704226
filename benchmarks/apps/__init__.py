"""The same app in each framework, and what starts and checks it.

Rules of these modules:

* Each app is written as the framework's own pages teach it, with its own JSON and its own tasks.
  Where they leave a choice, it is the faster one.
* An app has the endpoints that its framework has: what its users would have to build isn't
  measured as its own.
* All do the same work: the tasks count themselves, bodies are validated, streams have the same
  chunks.  `endpoints` says what is asked and which answer is right.
"""
