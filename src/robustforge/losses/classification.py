"""placeholder"""
import torch.nn.functional as F
def cross_entropy_per_sample(logits, y): return F.cross_entropy(logits, y, reduction="none")
def margin(logits, y):
    z=logits.gather(1,y[:,None]).squeeze(1)
    return logits.scatter(1,y[:,None],float("-inf")).amax(1)-z
