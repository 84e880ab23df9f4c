"""Mutants of the rules about initiates."""

from chimney.ndis.buffers import iterate, net_buffer_list
from chimney.ndis.state import NeighborConst, NeighborDelegated, TcpDelegated, mirror, walk
from chimney.ndis.status import OffloadStateType, Status, TcpConnectionState, TcpOffloadEvent
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim

SUCCESS, PARTIAL, FAILURE = Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS, Status.FAILURE
OFFLOADED = (SUCCESS, PARTIAL)


def connections(tree):
    """The TCP blocks of a tree."""
    return [block for block in walk(tree) if block.type is OffloadStateType.TCP]


# Targets: the course of an initiate, and its statuses


@mutant("initiate.async", scenario="transfer")
class InitiatesAtOnce(TargetShim):
    def initiate_offload(self, block_list):
        super().initiate_offload(block_list)
        self.inner.flush(self.inner.clock())


@mutant("initiate.concurrent", scenario="initiates-at-the-same-time")
class OneAtATime(TargetShim):
    under_way = False

    def initiate_offload(self, block_list):
        if self.under_way:
            raise RuntimeError("busy")
        self.under_way = True
        super().initiate_offload(block_list)

    def initiate_offload_complete(self, block_list):
        self.under_way = False
        super().initiate_offload_complete(block_list)


@mutant("initiate.order.depth-first", scenario="scarce-connections")
class LastFirst(TargetShim):
    def initiate_offload(self, block_list):
        turn(block_list)
        super().initiate_offload(block_list)

    def initiate_offload_complete(self, block_list):
        turn(block_list)
        super().initiate_offload_complete(block_list)


def turn(block):
    """Reverse the rows above a block."""
    row = []
    above = block.dependent_block_list
    while above is not None:
        row.append(above)
        above = above.next_block
    for above, following in zip(row[::-1], [*row[-2::-1], None], strict=False):
        above.next_block = following
        turn(above)
    block.dependent_block_list = row[-1] if row else None


class Recoding(TargetShim):
    """Instead of one status, another."""

    was, becomes = FAILURE, FAILURE

    def initiate_offload_complete(self, block_list):
        for block in walk(block_list):
            if block.status == self.was and self.concerns(block):
                block.status = self.becomes
        super().initiate_offload_complete(block_list)

    def concerns(self, block):
        return True


@mutant("initiate.status.success", scenario="partial-success")
class AlwaysSuccess(Recoding):
    was, becomes = PARTIAL, SUCCESS


@mutant("initiate.status.partial", scenario="transfer")
class NeverQuiteSuccess(Recoding):
    was, becomes = SUCCESS, PARTIAL


@mutant("initiate.status.resource-code", scenario="capacities")
class NoReason(Recoding):
    was, becomes = Status.OFFLOAD_PATH_ENTRIES, FAILURE


@mutant("initiate.status.hw-address", scenario="addresses-and-vlans")
class NoAddressCode(Recoding):
    was, becomes = Status.OFFLOAD_HW_ADDRESS_ENTRIES, FAILURE


@mutant("initiate.status.rcv-window", scenario="partial-success")
class NoWindowCode(Recoding):
    was, becomes = Status.OFFLOAD_TCP_RCV_WINDOW, Status.OFFLOAD_TCP_RCV_BUFFER


@mutant("initiate.status.path-mtu", scenario="partial-success")
class NoMtuCode(Recoding):
    was, becomes = Status.OFFLOAD_PATH_MTU, Status.RESOURCES


@mutant("initiate.vlan.no-resources", scenario="addresses-and-vlans")
class NoVlanCode(Recoding):
    was, becomes = Status.OFFLOAD_VLAN_ENTRIES, Status.OFFLOAD_VLAN_MISMATCH


@mutant("initiate.vlan.mismatch", scenario="addresses-and-vlans")
class NoMismatchCode(Recoding):
    was, becomes = Status.OFFLOAD_VLAN_MISMATCH, FAILURE


@mutant("initiate.vlan.acceptable", scenario="addresses-and-vlans")
class RefusesItsOwnVlan(Recoding):
    was, becomes = SUCCESS, Status.OFFLOAD_VLAN_MISMATCH

    def concerns(self, block):
        return isinstance(block.const, NeighborConst) and block.const.vlan_id == 5


@mutant("initiate.buffered.no-memory", scenario="shortages")
class BlamesTheHost(Recoding):
    was, becomes = FAILURE, Status.RESOURCES

    def concerns(self, block):
        return isinstance(block.delegated, TcpDelegated) and self.inner.allocate("path")


@mutant("initiate.status.failure-generic", scenario="partial-success")
class Unattempted(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in walk(block_list):
            if block.status == FAILURE:
                block.status = Status.NOT_SUPPORTED
        super().initiate_offload_complete(block_list)


@mutant("initiate.root-fail", scenario="capacities")
class GoesOnBesideTheRoot(TargetShim):
    def initiate_offload_complete(self, block_list):
        beside = block_list.next_block
        if block_list.status not in OFFLOADED and beside is not None:
            beside.status, beside.miniport_offload_context = PARTIAL, object()
        super().initiate_offload_complete(block_list)


@mutant("initiate.failed-node.dependents", scenario="partial-success")
class StandsOnNothing(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in walk(block_list):
            above = block.dependent_block_list
            if block.status == Status.OFFLOAD_PATH_MTU and above is not None:
                above.status, above.miniport_offload_context = SUCCESS, object()
        super().initiate_offload_complete(block_list)


@mutant("initiate.fail.leave-nbls", scenario="partial-success")
class WritesIntoTheChain(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in connections(block_list):
            if block.status not in OFFLOADED:
                for nbl in iterate(block.net_buffer_list_chain):
                    nbl.status = block.status
        super().initiate_offload_complete(block_list)


@mutant("initiate.fail.no-send-complete", scenario="partial-success")
class CompletesTheChain(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in connections(block_list):
            if block.status not in OFFLOADED and block.net_buffer_list_chain is not None:
                self.tcp_offload_send_complete(block.net_buffer_list_chain)
        super().initiate_offload_complete(block_list)


@mutant("initiate.context.contents", scenario="trees-of-connections")
class OneContextForAll(TargetShim):
    def initiate_offload_complete(self, block_list):
        first = next((block for block in connections(block_list) if block.status == SUCCESS), None)
        for block in connections(block_list):
            if block.status == SUCCESS:
                block.miniport_offload_context = first.miniport_offload_context
        super().initiate_offload_complete(block_list)


# Targets: connections that are being offloaded


@mutant("initiate.links", scenario="transfer")
class WrongNeighbor(LinkShim):
    def outgoing(self, segment):
        segment.destination = b"\2\0\0\0\0\x55"
        return [segment]


@mutant("initiate.enabled-at-once", scenario="initiated-early", side=1)
class Rejects(LinkShim):
    """Answers the first segments that come with RST."""

    refused = 0

    def incoming(self, segment):
        self.refused += 1
        if self.refused > 1:
            return [segment]
        answer = type(segment)(segment.build())
        answer.source, answer.destination = segment.destination, segment.source
        answer.ip[12:16], answer.ip[16:20] = segment.ip[16:20], segment.ip[12:16]
        answer.source_port, answer.destination_port = segment.destination_port, segment.source_port
        answer.seq, answer.ack, answer.flags, answer.payload = segment.ack, segment.end, 0x14, b""
        self.emit(answer)
        return []


@mutant("initiate.rx.no-early-indication", scenario="transfer")
class IndicatesTooEarly(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in connections(block_list):
            self.tcp_offload_receive_handler(block.ndis_offload_handle, net_buffer_list(b"early"), SUCCESS)
        super().initiate_offload_complete(block_list)


@mutant("initiate.no-indications", scenario="transfer")
class EventTooEarly(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in connections(block_list):
            event = TcpOffloadEvent.INDICATE_SEND_BACKLOG_CHANGE
            self.tcp_offload_event_handler(block.ndis_offload_handle, event, 1 << 16)
        super().initiate_offload_complete(block_list)


# Targets: data that is handed over


@mutant("initiate.buffered.copy", scenario="handed-over-receives", side=1)
class ReadsTheHostsBuffer(TargetShim):
    buffers = None

    def initiate_offload(self, block_list):
        for block in connections(block_list):
            if block.delegated.buffered_data is not None:
                self.buffers = block.delegated.buffered_data.first_net_buffer.views()
        super().initiate_offload(block_list)

    def tcp_offload_receive_complete(self, net_buffer_list):
        if self.buffers is not None:
            data = b"".join(self.buffers)
            memory = net_buffer_list.first_net_buffer.mdl_chain.view
            memory[: len(data)] = data[: len(memory)]
            self.buffers = None
        super().tcp_offload_receive_complete(net_buffer_list)


@mutant("initiate.buffered.wait", scenario="handed-over-receives", side=1)
class IndicatesWhatWasHandedOver(TargetShim):
    def initiate_offload_complete(self, block_list):
        waiting = [
            (block.ndis_offload_handle, block.delegated.buffered_data)
            for block in connections(block_list)
            if block.delegated.buffered_data is not None
        ]
        super().initiate_offload_complete(block_list)
        for handle, nbl in waiting:
            self.tcp_offload_receive_handler(handle, net_buffer_list(*nbl.first_net_buffer.views()), SUCCESS)


@mutant("initiate.buffered.first", scenario="handed-over-receives", side=1)
class NewestFirst(TargetShim):
    def tcp_offload_receive_complete(self, net_buffer_list):
        memory = net_buffer_list.first_net_buffer.mdl_chain.view
        memory[:] = bytes(memory)[::-1]
        super().tcp_offload_receive_complete(net_buffer_list)


@mutant("initiate.senddata.inflight", scenario="handed-over-in-flight")
class SendsAllAgain(TargetShim):
    def initiate_offload(self, block_list):
        for block in connections(block_list):
            block.delegated.snd_nxt = block.delegated.snd_una
        super().initiate_offload(block_list)


@mutant("initiate.senddata.resend-first", scenario="sent-again-at-once")
class SendsNothingAgain(TargetShim):
    def initiate_offload(self, block_list):
        for block in connections(block_list):
            block.delegated.snd_nxt = block.delegated.snd_max
        super().initiate_offload(block_list)


@mutant("initiate.senddata.unsent-next", scenario="handed-over-sends")
class ChainBackwards(TargetShim):
    def initiate_offload(self, block_list):
        for block in connections(block_list):
            head = None
            for nbl in iterate(block.net_buffer_list_chain):
                nbl.next, head = head, nbl
            block.net_buffer_list_chain = head
        super().initiate_offload(block_list)


@mutant("initiate.senddata.complete", scenario="handed-over-sends")
class LosesTheChain(TargetShim):
    def initiate_offload(self, block_list):
        self.chain = [nbl for block in connections(block_list) for nbl in iterate(block.net_buffer_list_chain)]
        super().initiate_offload(block_list)

    def tcp_offload_send_complete(self, net_buffer_list):
        for nbl in iterate(net_buffer_list):
            nbl.next = None
            if nbl not in self.chain:
                super().tcp_offload_send_complete(nbl)


# Hosts


@mutant("initiate.status.rejected", scenario="declined-connections")
class TakesNoRefusal(HostShim):
    def initiate_offload_complete(self, block_list):
        if any(block.status == Status.OFFLOAD_CONNECTION_REJECTED for block in walk(block_list)):
            raise RuntimeError("that is no reason")
        super().initiate_offload_complete(block_list)


@mutant("initiate.rx.early-processing", scenario="initiated-early", side=1)
class WantsToBeAskedFirst(HostShim):
    def initiate_offload_complete(self, block_list):
        if any(name == self.side.link.name for _, name, _ in self.side.world.wire):
            raise RuntimeError("it has spoken before it was allowed to")
        super().initiate_offload_complete(block_list)


@mutant("initiate.sws.after", scenario="handed-over-sends")
class WantsItHeldBack(HostShim):
    def tcp_offload_send_complete(self, net_buffer_list):
        if self.side.clock() < 1_500_000:
            raise RuntimeError("the silly-window timer cannot have expired yet")
        super().tcp_offload_send_complete(net_buffer_list)


@mutant("initiate.host.no-duplicate", scenario="transfer")
class OffloadsTwice(HostShim):
    def initiate_offload(self, tree):
        super().initiate_offload(tree)
        super().initiate_offload(mirror(tree, copied))


def copied(block):
    return type(block)(
        type=block.type,
        const=block.const,
        cached=block.cached,
        delegated=block.delegated,
        offload_handle=block.offload_handle,
    )


@mutant("initiate.host.quiet", scenario="transfer")
class CannotWait(HostShim):
    def initiate_offload(self, tree):
        super().initiate_offload(tree)
        [block] = connections(tree)
        self.offload_tcp_send(block.offload_handle, net_buffer_list(b"now"))


class Changing(HostShim):
    """Changes the tree of an initiate."""

    def initiate_offload(self, tree):
        for block in walk(tree):
            if isinstance(block.delegated, TcpDelegated):
                self.change(block, block.delegated)
            elif isinstance(block.delegated, NeighborDelegated):
                self.change_neighbor(block.delegated)
        super().initiate_offload(tree)

    def change(self, block, delegated):
        pass

    def change_neighbor(self, delegated):
        pass


@mutant("initiate.states", scenario="transfer")
class OffloadsWhatIsOver(Changing):
    def change(self, block, delegated):
        delegated.state = TcpConnectionState.TIME_WAIT


@mutant("initiate.timers.not-running", scenario="transfer")
class TimersAlwaysDue(Changing):
    def change(self, block, delegated):
        delegated.retransmit.timeout_delta = 0


@mutant("initiate.reach.equal", scenario="transfer")
class DifferentDeltas(Changing):
    def change_neighbor(self, delegated):
        delegated.nic_reachability_delta += 5


@mutant("initiate.senddata.chain", scenario="handed-over-sends")
class NoTail(Changing):
    def change(self, block, delegated):
        delegated.send_data_tail = None


@mutant("initiate.senddata.una-first", scenario="a-part-was-acknowledged")
class OneByteLater(Changing):
    def change(self, block, delegated):
        if block.net_buffer_list_chain is not None:
            buffer = block.net_buffer_list_chain.first_net_buffer
            buffer.data_offset += 1
            buffer.data_length -= 1


@mutant("initiate.buffered.newest", scenario="buffered-once-more", side=1)
class LosesTheLastByte(Changing):
    def change(self, block, delegated):
        if delegated.buffered_data is not None:
            delegated.buffered_data.first_net_buffer.data_length -= 1


@mutant("initiate.buffered.host-frees", scenario="buffered-once-more", side=1)
class KeepsTheBuffer(HostShim):
    def free_handed_over(self, net_buffer_list):
        pass


@mutant("initiate.no-ip-options", scenario="handshakes")
class OffloadsAnything(HostShim):
    def may_offload(self, end):
        return True


@mutant("initiate.host.flush-ack", scenario="handshakes")
class OwesAcknowledgements(HostShim):
    def settle_acknowledgements(self, end):
        sent = end.peer.segment(0, ack=0, push=False)
        end.side.port.send(end.peer.frame(sent), [], 0, 0, 0, False)
