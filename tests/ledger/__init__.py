"""The ledger: every collective of a sharded view, held to what torch.distributed really sends.

tests/ledger/programs are small plain-torch programs; executor/alone/sent.py records their
collectives under a fake process group. The formulas below are what the programs send, and what
the graph must say, to the byte. Order is the order of execution, first to last.

Symbols
    b sequences, s tokens per sequence (of all cp ranks), h hidden, V vocabulary
    e bytes of an activation or weight, w = max(e, 4) bytes of what is kept in fp32
    n = b*s/cp          tokens of one tp group: the rows inside a tensor-parallel block
    r = n/tp with sequence parallelism, else n: the rows of the residual stream on a rank
    Q = heads*head_dim, K = kv_heads*head_dim, U = kv_heads*value_dim, O = heads*value_dim
    x per_token, and E experts, ep expert-parallel ranks, etp ranks that divide each expert
Bytes are of the full tensor: all_gather its output, reduce_scatter its input, all_reduce the
tensor, all_to_all the rank's input, send_recv the one message a rank sends (and receives).
A group of one rank sends nothing. Where V is not a multiple of tp, the graph speaks of a rank
with ceil(V/tp) rows; the last rank's share of the weights is smaller.

a  tp with sequence parallelism                                  (executor.parallel.tensor_parallel)
    embedding   forward   reduce_scatter tp  n*h*e         (vocabulary-parallel rows summed)
                backward  all_gather     tp  n*h*e
    layer       per block (attention; cross-attention; MLP or shared expert; both of a parallel
                layer, each with its own norm, gather for themselves):
                forward   all_gather     tp  n*h*e         (before q, k, v or gate, up)
                          reduce_scatter tp  n*h*e         (after o or down)
                backward  all_gather     tp  n*h*e         (of the gradient, at o or down)
                          reduce_scatter tp  n*h*e         (of the gradient, at the entry)
                cross-attention also reads the encoder's rows m = b*s_encoder/cp, in every layer:
                forward   all_gather     tp  m*h*e         (before k, v)
                backward  reduce_scatter tp  m*h*e
                latent attention is entered behind the down projections of each rank's own rows,
                so of its gathers and reduce_scatters instead of n*h*e
                q: n*query_rank*e (without one n*h*e);  k and v: n*(kv_rank + rotary_dim)*e
    head        forward   all_gather     tp  n*h*e
                          all_reduce     tp  n*w           maximum of the logits
                          all_reduce     tp  n*w           sum of the exponentials
                          all_reduce     tp  n*w           logit of the target
                backward  reduce_scatter tp  n*h*e
    step        backward  all_reduce     tp  R*g           replicated parameters, once per stage:
                norms, row-parallel biases, learned positions, routers; g bytes of a gradient.
                R = sum over them of ceil(elements*e/64)*64/e in executor.states.flat, which starts
                every parameter at a 64-byte line.

b  tp without sequence parallelism                               (Megatron-LM's f and g)
    embedding   forward   all_reduce     tp  n*h*e         backward nothing
    layer       per block:
                forward   all_reduce     tp  n*h*e         (after o or down)
                backward  all_reduce     tp  n*h*e         (of the gradient, at the entry)
                latent attention enters twice, q and k with v, of the widths as in a
                cross-attention besides:
                backward  all_reduce     tp  m*h*e         (of the encoder's rows)
    head        forward   all_reduce     tp  n*w, three times, as in a
                backward  all_reduce     tp  n*h*e         (at the entry)
    step        nothing: replicated parameters have equal gradients on all ranks (but those of
                qk_norm, 2*head_dim elements per layer that see the rank's own heads only; they
                would be summed as in a, and the graph does not say so)

c  context parallelism, inside the attention core; k of width K/tp and v of width U/tp
    ring        forward   send_recv      cp  n*(K+U)/tp*e  cp-1 times   (k and v, one message)
                backward  send_recv      cp  n*(K+U)/tp*e  cp-1 times   (k and v once more)
                          send_recv      cp  n*(K+U)/tp*w  cp times     (dk and dv, accumulated
                          in fp32, home after cp hops, as torch's own ring attention does)
    all_to_all  forward   all_to_all     cp  n*Q/tp*e, n*K/tp*e, n*U/tp*e   (q, k, v)
                          all_to_all     cp  n*O/tp*e                       (output)
                backward  all_to_all     cp  n*O/tp*e, then n*U/tp*e, n*K/tp*e, n*Q/tp*e
                cp must divide kv_heads/tp (refused, not replicated)
    all_gather  forward   all_gather     cp  cp*n*K/tp*e, cp*n*U/tp*e       (k, v: b*s rows)
                backward  reduce_scatter cp  cp*n*U/tp*e, cp*n*K/tp*e       (dv, dk)
    Cross-attention: k and v have the encoder's rows b*s_encoder/cp instead of n.
    Embedding, MLP and head send nothing over cp; weight gradients are reduced over dp*cp (e).

d  experts; every rank routes its own r rows, x copies of each, evenly to all experts
    layer       forward   all_to_all     ep  r*x*h*e           dispatch
                          all_gather     etp etp*r*x*h*e       rows of the etp group
                          reduce_scatter etp etp*r*x*h*e       partial sums of `down`
                          all_to_all     ep  r*x*h*e           combine
                backward  all_to_all     ep  r*x*h*e           combine
                          all_gather     etp etp*r*x*h*e
                          reduce_scatter etp etp*r*x*h*e
                          all_to_all     ep  r*x*h*e           dispatch
    The expert block itself sends nothing over tp (its rows are the residual stream's; tp > 1
    needs sequence parallelism, else every tp rank would send the same rows). A shared expert is
    an MLP of a or b. Difference: real routing is not even and first exchanges counts, one
    all_to_all of E int64 (8*E bytes) over ep in the forward; not in the graph.

e  data parallelism over d ranks (dense parameters: d = dp*cp; experts: d = dp*cp*tp/(ep*etp));
   p over the parameters that a rank holds after tp, ep, etp; D(p) rows (dim 0), N(p) elements
    padded(d) = sum over p of ceil(D/d)*d * N/D         torch divides dim 0 in equal chunks
    ZeRO 0      backward  all_reduce     dp  P*g               once per stage and step
    ZeRO 1      backward  reduce_scatter dp  P*g               once per stage and step
                          all_gather     dp  P*e               the new weights
                P = executor.states.flat's size: sum of ceil(N*e/64)*64/e; ZeRO 1 rounds it up to d
                (the norm of all gradients is one more all_reduce of 8 bytes, over all ranks)
    ZeRO 2      forward   all_gather     dp  padded(d)*e       FSDP2, reshard_after_forward=False
                backward  reduce_scatter dp  padded(d)*g
    ZeRO 3      forward   all_gather     dp  padded(d)*e       FSDP2, reshard_after_forward=True
                backward  all_gather     dp  padded(d)*e
                          reduce_scatter dp  padded(d)*g
    HSDP        as 2 or 3 over the d/k ranks of a shard group, then for the k replicas
                backward  all_reduce     dp  padded(d/k)/(d/k)*g
    2, 3 and HSDP are per group of parameters (a layer; embedding; head), per backward.
"""
