"""The chaos run: nothing is lost and nothing is stuck, whatever happens to the receivers.

    make soak ARGS="--seconds 600 --seed 42"

Endpoints of many options post to receivers in processes of their own, which are killed and
restarted, frozen, slow and wrong, while the endpoints are closed and made again and the process
forks. In the end the books have to balance: `audit` says what is asked of them. The seed decides
which faults come when; what they meet is up to the machine.
"""
