import os

from infra.local_environment import TELEMETRY_OFF

os.environ.update(TELEMETRY_OFF)
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
        "TZ": "UTC",
    }
)

pytest_plugins = ["recipe_budget", "object_store"]
