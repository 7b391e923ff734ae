import grpc

from csi_model.generated import pluginregistration_pb2 as messages

class RegistrationStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    GetInfo: grpc.UnaryUnaryMultiCallable[messages.InfoRequest, messages.PluginInfo]
    NotifyRegistrationStatus: grpc.UnaryUnaryMultiCallable[messages.RegistrationStatus, messages.RegistrationStatusResponse]

class RegistrationServicer:
    def GetInfo(self, request: messages.InfoRequest, context: grpc.ServicerContext) -> messages.PluginInfo: ...
    def NotifyRegistrationStatus(self, request: messages.RegistrationStatus, context: grpc.ServicerContext) -> messages.RegistrationStatusResponse: ...

def add_RegistrationServicer_to_server(servicer: RegistrationServicer, server: grpc.Server) -> None: ...
